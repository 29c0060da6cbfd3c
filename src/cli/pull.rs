// SPDX-License-Identifier: Apache-2.0
//! `isopod pull`.

use super::layers::LoadProgress;
use super::output;
use super::{Global, Outcome};
use clap::Args;

/// Pull an image from its registry
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Its name: REGISTRY/REPOSITORY:TAG, or with @DIGEST
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(global: &Global, args: &PullArgs) -> Outcome {
    let pulled = global.engine()?.pull(&args.image, &LoadProgress::new(args.quiet))?;
    if !args.quiet {
        output::talk(&format!("Digest: {}", pulled.digest));
    }
    // As scripts have it from Docker.
    output::line(&pulled.reference.map_or_else(|| args.image.clone(), |reference| reference.to_string()))?;
    Ok(0)
}
