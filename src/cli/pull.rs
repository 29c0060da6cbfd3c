// SPDX-License-Identifier: Apache-2.0
//! `isopod pull`.

use super::error::Failure;
use super::layers::LoadProgress;
use super::output;
use super::{Global, Outcome};
use clap::Args;
use isopod_engine::Engine;

/// Pull an image from its registry
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Its name: REGISTRY/REPOSITORY:TAG, or with @DIGEST
    #[arg(value_name = "IMAGE")]
    image: String,
    /// All tags of a repository
    #[arg(short, long)]
    all_tags: bool,
    /// For this platform, of an image for several: OS/ARCHITECTURE[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(global: &Global, args: &PullArgs) -> Outcome {
    let engine = global.engine()?;
    if !args.all_tags {
        pull(&engine, &args.image, args)?;
        return Ok(0);
    }
    Engine::tags(&args.image)?.iter().try_for_each(|image| pull(&engine, image, args))?;
    Ok(0)
}

fn pull(engine: &Engine, image: &str, args: &PullArgs) -> Result<(), Failure> {
    let pulled = engine.pull(image, args.platform.as_deref(), &LoadProgress::new(args.quiet))?;
    if !args.quiet {
        output::talk(&format!("Digest: {}", pulled.digest));
    }
    // As scripts have it from Docker.
    output::line(&pulled.reference.map_or_else(|| image.to_owned(), |reference| reference.to_string()))
}
