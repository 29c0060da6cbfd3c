// SPDX-License-Identifier: Apache-2.0
//! Developer commands, one verb a file: `cargo xtask kernel | rootfs | bench | fuzz | check | advisories`.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod deny;
mod fuzz;
mod kernel;
mod rootfs;
mod say;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer commands of isopod")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the guest kernel, or find it built
    Kernel(kernel::Arguments),
    /// Make the demo image
    Rootfs,
    /// Fuzz the parsers, each target for a while
    Fuzz(fuzz::Arguments),
    /// Count what things cost, beside their targets
    Bench(bench::Arguments),
    /// What CI checks: format, lints, walls, sizes, dependencies, documentation
    Check,
    /// Whether a dependency has a known fault
    Advisories(deny::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Kernel(arguments) => kernel::run(&arguments),
        Verb::Rootfs => rootfs::run(),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Check => check::run(),
        Verb::Advisories(arguments) => deny::advisories(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace this was compiled in.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}
