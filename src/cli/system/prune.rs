// SPDX-License-Identifier: Apache-2.0
//! `isopod system prune`.

use crate::cli::{Global, Outcome, output, prune};
use clap::Args;

/// Remove what nobody needs
#[derive(Debug, Args)]
pub(super) struct SystemPruneArgs {
    /// Images with a name too, if nothing is of them
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(global: &Global, args: &SystemPruneArgs) -> Outcome {
    let engine = global.engine()?;
    if !args.force {
        let images = if args.all { "all images" } else { "all images without a name" };
        output::confirm(&format!(
            "This will remove:\n  - all containers that have ended\n  - {images} that no container and no snapshot is of\n  \
             - all templates that this isopod cannot use\n  - all that killed processes have left"
        ))?;
    }
    let gone = engine.prune_system(args.all)?;
    let containers: Vec<String> = gone.containers.iter().map(|c| c.id.as_str().to_owned()).collect();
    prune::list("Deleted Containers:", &containers)?;
    prune::images(&gone.images.images)?;
    prune::list("Deleted Templates:", &gone.templates)?;
    if gone.stray.count > 0 {
        prune::list("Deleted Stray Files:", &[gone.stray.count.to_string()])?;
    }
    prune::total(gone.bytes)?;
    Ok(0)
}
