// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask kernel`: the guest kernel, from sources and the inputs in `kernel-config/`, kept in the user's cache
//! under the id of those inputs.
//!
//! ```text
//!   cached? ──yes──► say where
//!      │ no
//!   tools ─► source ─► copy ─► patch ─► configure ─► make ─► strip ─► rename into place
//!            └────────────── in a temporary folder of the cache ──────────────┘
//! ```
//! A build that stops half way leaves nothing in the place where kernels are looked for, and two builds at once
//! wait for each other.

mod build;
mod config;
mod manifest;
mod source;
mod tools;

use crate::say;
use anyhow::{Context, Result};
use clap::Args;
use isopod_kernel_config as kernel_config;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A kernel tree or tarball to build from, instead of Debian's linux-source package
    #[arg(long, value_name = "DIR|TARBALL")]
    source: Option<PathBuf>,
    /// Build even if this kernel is in the cache
    #[arg(long)]
    force: bool,
    /// A kernel to look into: with debug.config and debug information, kept beside the normal one
    #[arg(long)]
    debug: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let cache = kernel_config::cache_dir().context("no cache folder: set HOME or XDG_CACHE_HOME")?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let id = kernel_config::id();
    let place = cache.join(if arguments.debug { format!("{id}-debug") } else { id });

    let _one_at_a_time = lock(&cache.join("lock"))?;
    let vmlinux = place.join("vmlinux");
    if vmlinux.is_file() && !arguments.force {
        say::line(format_args!("kernel: {} is built", vmlinux.display()));
        return Ok(());
    }
    let manifest = manifest::Manifest::read()?;
    tools::check()?;
    let source = source::Source::find(arguments.source.as_deref(), &manifest.series)?;
    let work = tempfile::Builder::new()
        .prefix("build-")
        .tempdir_in(&cache)
        .with_context(|| format!("cannot make a folder in {}", cache.display()))?;
    let tree = source.copy_into(work.path(), &manifest.series)?;
    build::patch(&tree, &manifest)?;
    config::configure(&tree, &manifest, arguments.debug)?;
    build::make(&tree, &cache.join("build.log"))?;
    let made = build::gather(&tree, work.path(), arguments.debug)?;
    put_in_place(&made, &place)?;
    say::line(format_args!("kernel: {}", vmlinux.display()));
    Ok(())
}

/// Waits for another build to end. The lock goes with the file handle.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        say::line("kernel: waiting for another build");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Moves the finished folder to where it is looked for, in one rename.
fn put_in_place(made: &Path, place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place).with_context(|| format!("cannot remove the old {}", place.display()))?;
    }
    fs::rename(made, place).with_context(|| format!("cannot move the kernel to {}", place.display()))
}
