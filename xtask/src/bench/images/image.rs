// SPDX-License-Identifier: Apache-2.0
//! The image that is pulled: Debian with Python, nginx and Redis in eight layers, made once and kept by the hash of how.

use super::usage;
use crate::say::Progress;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What makes a difference to the image is in this file.
const RECIPE: &str = include_str!("image.rs");
const PACKAGES: &str = "python3,nginx,redis-server,git,vim-tiny,curl,openssl";
/// Where each layer's files begin; what begins nowhere is in the first.
const LAYERS: [&[&str]; 7] = [
    &["usr/lib/x86_64-linux-gnu"],
    &["usr/bin", "usr/sbin"],
    &["usr/lib/python3", "usr/lib/python3.11"],
    &["usr/share/doc", "usr/share/man", "usr/share/info"],
    &["usr/share/locale", "usr/share/i18n", "usr/share/zoneinfo"],
    &["usr/share/perl", "usr/lib/git-core", "usr/share/vim", "usr/share/git-core"],
    &["var/lib", "var/cache", "usr/share/nginx", "etc/nginx", "etc/redis"],
];

/// The layout's folder; the image in it is called `bench`.
pub(super) fn layout() -> Result<PathBuf> {
    let home = env::var_os("HOME").context("there is no home for the cache")?;
    let cache = Path::new(&home).join(".cache/isopod/bench-images");
    fs::create_dir_all(&cache).context("cannot make the cache")?;
    let hash: String = Sha256::digest(RECIPE).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let made = cache.join(hash);
    if !made.exists() {
        let work = tempfile::tempdir_in(&cache).context("cannot make a folder in the cache")?;
        fs::rename(make(work.path())?, &made).context("cannot keep the image")?;
    }
    Ok(made)
}

fn make(work: &Path) -> Result<PathBuf> {
    let progress = Progress::begin("bench: making an image of Debian, once");
    let (layout, root) = (work.join("layout"), work.join("root"));
    usage::run(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=apt", &format!("--include={PACKAGES}"), "bookworm"])
            .arg(&root),
    )?;
    let image = format!("{}:bench", layout.display());
    usage::run(Command::new("umoci").args(["init", "--layout"]).arg(&layout))?;
    usage::run(Command::new("umoci").args(["new", "--image", &image]))?;
    let layer = work.join("layer.tar");
    for number in 0..=LAYERS.len() {
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--xattrs", "--sort=name", "--anchored", "-C"])
            .arg(&root)
            .arg("-cf")
            .arg(&layer);
        match number.checked_sub(1).and_then(|n| LAYERS.get(n)) {
            Some(parts) => tar.args(parts.iter().filter(|part| root.join(part).exists())),
            None => tar.args(LAYERS.concat().iter().map(|part| format!("--exclude=./{part}"))).arg("."),
        };
        usage::run(&mut tar)?;
        usage::run(Command::new("umoci").args(["raw", "add-layer", "--image", &image]).arg(&layer))?;
    }
    progress.done("");
    Ok(layout)
}
