// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask rootfs`: the demo image of `rootfs/demo.toml` as an OCI archive in `target/rootfs/demo.tar`.
//!
//! Made without any image tool, and the same to the byte every time its inputs are: so it can be embedded, and a
//! store that has it already knows it by its digest.

mod archive;
mod layer;
mod manifest;
mod unpack;

use crate::say::Progress;
use crate::workspace;
use anyhow::{Context, Result};
use archive::Archive;
use layer::Layer;
use manifest::Manifest;
use std::fs;
use std::path::Path;

pub(crate) fn run() -> Result<()> {
    let progress = Progress::begin("rootfs: making the demo image");
    let (manifest, layers) = make()?;
    let bytes = Archive::of(&manifest, &layers)?.into_bytes()?;

    let folder = workspace().join("target/rootfs");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let place = folder.join("demo.tar");
    // A file that is written again is embedded again, and the program built again.
    if fs::read(&place).is_ok_and(|there| there == bytes) {
        progress.done(&format!("{} is made", place.display()));
        return Ok(());
    }
    let unfinished = folder.join("demo.tar.new");
    fs::write(&unfinished, &bytes).with_context(|| format!("cannot write {}", unfinished.display()))?;
    fs::rename(&unfinished, &place).with_context(|| format!("cannot put {} in place", place.display()))?;
    progress.done(&format!("{}, {} KiB", place.display(), bytes.len() / 1024));
    Ok(())
}

/// The files of the demo image in a folder, for those who want one.
pub(crate) fn unpack(into: &Path) -> Result<()> {
    let (_, layers) = make()?;
    layers.iter().try_for_each(|layer| unpack::unpack(&layer.blob.bytes, into))
}

fn make() -> Result<(Manifest, Vec<Layer>)> {
    let inputs = workspace().join("rootfs");
    let manifest = Manifest::read(&inputs.join("demo.toml"))?;
    let make = |layer| Layer::make(layer, &inputs, manifest.time);
    let layers = manifest.layers.iter().map(make).collect::<Result<_>>()?;
    Ok((manifest, layers))
}
