// SPDX-License-Identifier: Apache-2.0
//! One layer: entries to a tar stream, to gzip, with both digests.

use super::archive::{Blob, hex_digest};
use super::manifest::{Applets, Entry, File, LayerSpec};
use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tar::{Builder, EntryType, Header};

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) about: String,
    /// SHA-256 of the tar stream: how a configuration names the layer.
    pub(super) diff_id: String,
    /// The gzip of it, as manifests name it.
    pub(super) blob: Blob,
}

impl Layer {
    pub(super) fn make(spec: &LayerSpec, inputs: &Path, time: u64) -> Result<Self> {
        let mut writer = Writer { tar: Builder::new(Vec::new()), inputs, time };
        for entry in &spec.entries {
            writer.entry(entry)?;
        }
        let tar = writer.tar.into_inner().context("cannot end a layer")?;
        // No name and no time in the header: the same input gives the same bytes.
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        gzip.write_all(&tar).context("cannot compress a layer")?;
        let bytes = gzip.finish().context("cannot compress a layer")?;
        Ok(Self { about: spec.about.clone(), diff_id: hex_digest(&tar), blob: Blob::new(bytes) })
    }
}

struct Writer<'a> {
    tar: Builder<Vec<u8>>,
    inputs: &'a Path,
    time: u64,
}

impl Writer<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        match entry {
            Entry::Dir(dir) => {
                let mut header = self.header(EntryType::Directory, dir.mode.unwrap_or(0o755));
                header.set_uid(dir.uid);
                header.set_gid(dir.gid);
                self.append(header, &format!("{}/", dir.dir), &[])
            }
            Entry::File(file) => {
                let contents = self.contents(file)?;
                let header = self.header(EntryType::Regular, file.mode.unwrap_or(0o644));
                self.append(header, &file.file, &contents)
            }
            Entry::Link(link) => self.link(&link.link, &link.to),
            Entry::Applets(applets) => self.applets(applets),
            Entry::Whiteout(gone) => {
                let (folder, name) = gone.whiteout.rsplit_once('/').unwrap_or(("", &gone.whiteout));
                let path =
                    if folder.is_empty() { format!(".wh.{name}") } else { format!("{folder}/.wh.{name}") };
                let header = self.header(EntryType::Regular, 0o644);
                self.append(header, &path, &[])
            }
        }
    }

    fn header(&self, kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        header
    }

    fn append(&mut self, mut header: Header, path: &str, contents: &[u8]) -> Result<()> {
        header.set_size(u64::try_from(contents.len())?);
        self.tar.append_data(&mut header, path, contents).with_context(|| format!("cannot add {path}"))
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = self.header(EntryType::Symlink, 0o777);
        header.set_size(0);
        self.tar.append_link(&mut header, path, target).with_context(|| format!("cannot add {path}"))
    }

    fn contents(&self, file: &File) -> Result<Vec<u8>> {
        let from = match (&file.from, &file.text) {
            // An absolute path replaces the folder.
            (Some(from), None) => self.inputs.join(from),
            (None, Some(text)) => return Ok(text.clone().into_bytes()),
            _ => bail!("{} needs either `from` or `text`", file.file),
        };
        let cure =
            file.package.as_ref().map(|package| format!(": apt install {package}")).unwrap_or_default();
        let contents =
            fs::read(&from).with_context(|| format!("the demo image needs {}{cure}", from.display()))?;
        if file.package.is_some() && names_a_loader(&contents) {
            bail!("the demo image needs a static {}{cure}", from.display());
        }
        Ok(contents)
    }

    /// A link for every name that the busybox just added answers to, as it says itself; but for `linuxrc` at the
    /// very top, which is for an initial RAM disk.
    fn applets(&mut self, applets: &Applets) -> Result<()> {
        let busybox = format!("/{}", applets.applets);
        let output = Command::new(&busybox)
            .arg("--list-full")
            .output()
            .with_context(|| format!("cannot ask {busybox} for its names"))?;
        let text = String::from_utf8(output.stdout).context("busybox has a name that is not UTF-8")?;
        let mut names: Vec<&str> =
            text.lines().filter(|name| *name != applets.applets && name.contains('/')).collect();
        if names.is_empty() {
            bail!("{busybox} --list-full names nothing");
        }
        names.sort_unstable();
        names.dedup();
        names.iter().try_for_each(|name| self.link(name, &busybox))
    }
}

/// Whether this program needs shared libraries, which the image does not have.
fn names_a_loader(program: &[u8]) -> bool {
    program.get(..4096).unwrap_or(program).windows(9).any(|bytes| bytes == b"/ld-linux")
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{LayerSpec, Manifest};
    use super::Layer;
    use flate2::read::GzDecoder;
    use std::collections::BTreeMap;
    use std::io::{Read, Result};
    use std::path::Path;
    use tar::{Archive, Entry as TarEntry};

    fn layer(text: &str) -> Layer {
        let spec: LayerSpec = toml::from_str(text).unwrap();
        Layer::make(&spec, Path::new("/nonexistent"), 7).unwrap()
    }

    fn entries(layer: &Layer) -> BTreeMap<String, (u32, String)> {
        let mut archive = Archive::new(GzDecoder::new(layer.blob.bytes.as_slice()));
        let read = |entry: Result<TarEntry<'_, _>>| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let link = entry.link_name().unwrap().map(|to| to.display().to_string()).unwrap_or_default();
            (entry.path().unwrap().display().to_string(), (entry.header().mode().unwrap(), text + &link))
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn every_kind_of_entry_becomes_its_tar_entry() {
        let layer = layer(
            r#"about = "a"
            entries = [{ dir = "d", mode = 0o1777 }, { file = "d/f", text = "x" }, { link = "l", to = "d/f" },
                       { whiteout = "d/gone" }, { whiteout = "top" }]"#,
        );
        let entries = entries(&layer);
        assert_eq!(entries["d/"], (0o1777, String::new()));
        assert_eq!(entries["d/f"], (0o644, "x".to_owned()));
        assert_eq!(entries["l"].1, "d/f");
        assert!(entries.contains_key("d/.wh.gone") && entries.contains_key(".wh.top"));
    }

    #[test]
    fn two_builds_of_a_layer_are_equal() {
        let text = "about = \"a\"\nentries = [{ file = \"f\", text = \"x\" }]";
        assert_eq!(layer(text).blob.digest, layer(text).blob.digest);
    }

    #[test]
    fn a_missing_input_names_its_package() {
        let spec: LayerSpec = toml::from_str(
            "about = \"a\"\nentries = [{ file = \"f\", from = \"/nonexistent/f\", package = \"busybox-static\" }]",
        )
        .unwrap();
        let error = Layer::make(&spec, Path::new("/"), 0).unwrap_err();
        assert!(error.to_string().contains("apt install busybox-static"));
    }

    #[test]
    fn the_demo_manifest_is_understood() {
        let path = crate::workspace().join("rootfs/demo.toml");
        assert_eq!(Manifest::read(&path).unwrap().layers.len(), 2);
    }
}
