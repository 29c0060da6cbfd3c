// SPDX-License-Identifier: Apache-2.0
//! `isopod push`.

use super::layers::LoadProgress;
use super::output;
use super::{Global, Outcome};
use clap::Args;

/// Push an image to the registry in its name
#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// Its name: REGISTRY/REPOSITORY:TAG
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(global: &Global, args: &PushArgs) -> Outcome {
    let digest = global.engine()?.push(&args.image, &LoadProgress::pushing(args.quiet))?;
    if !args.quiet {
        output::talk(&format!("Digest: {digest}"));
    }
    output::line(&args.image)?;
    Ok(0)
}
