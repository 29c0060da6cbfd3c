// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench`: what things cost, counted where they can be, each figure beside its target.

mod boot;
mod memory;
mod syscalls;

use anyhow::{Context, Result};
use clap::Subcommand;
use std::env;
use std::path::PathBuf;
use std::process::Command;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A cold start: time to the first KVM_RUN, guest-kernel instructions to the agent's hello, memory, sizes
    Boot(boot::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        What::Boot(arguments) => boot::run(arguments),
    }
}

/// The release build of the product, made if need be.
fn product() -> Result<PathBuf> {
    let root = super::workspace();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--package", "isopod", "--message-format=short"])
        .current_dir(&root)
        .status()
        .context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "the release build failed");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/isopod"))
}

/// The middle one of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
