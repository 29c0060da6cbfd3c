// SPDX-License-Identifier: Apache-2.0
//! A layer onto a folder, whiteouts and all (image-spec, "Applying Changesets"). For our own layers only: nothing is
//! done against those that mean harm.

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use tar::Archive;

pub(super) fn unpack(layer: &[u8], into: &Path) -> Result<()> {
    let mut archive = Archive::new(GzDecoder::new(layer));
    archive.set_preserve_permissions(true);
    for entry in archive.entries().context("cannot read a layer")? {
        let mut entry = entry.context("cannot read a layer")?;
        let path = entry.path().context("cannot read a name in a layer")?.into_owned();
        let gone = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(".wh."));
        match gone {
            Some(name) => remove(&into.join(&path).with_file_name(name)),
            None => entry.unpack_in(into).map(|_| ()),
        }
        .with_context(|| format!("cannot unpack {}", path.display()))?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::super::layer::Layer;
    use super::*;

    fn layer(entries: &str) -> Vec<u8> {
        let spec = toml::from_str(&format!("about = \"a\"\nentries = [{entries}]")).unwrap();
        Layer::make(&spec, Path::new("/nonexistent"), 7).unwrap().blob.bytes
    }

    #[test]
    fn an_upper_layer_adds_and_takes_away() {
        let folder = tempfile::tempdir().unwrap();
        let there = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        let lower = r#"{ dir = "d" }, { file = "d/kept", text = "k" }, { file = "d/gone", text = "g" }"#;
        unpack(&layer(lower), folder.path()).unwrap();
        assert_eq!(there("d/gone").as_deref(), Some("g"));
        unpack(&layer(r#"{ whiteout = "d/gone" }, { file = "new", text = "n" }"#), folder.path()).unwrap();
        assert_eq!(
            (there("d/kept").as_deref(), there("d/gone"), there("new").as_deref()),
            (Some("k"), None, Some("n"))
        );
    }
}
