// SPDX-License-Identifier: Apache-2.0
//! `isopod image prune`, and what it shares with `isopod system prune`.

use super::error::Failure;
use super::{Global, Outcome, human, output};
use clap::Args;
use isopod_engine::{ImageFilters, Removed};

/// Remove images without a name that nothing is of
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Those with a name, too
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only some: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

pub(super) fn run(global: &Global, args: &PruneArgs) -> Outcome {
    let filters = ImageFilters::parse(&args.filter, ImageFilters::PRUNED)?;
    let engine = global.engine()?;
    if !args.force {
        output::confirm(if args.all {
            "This will remove all images that no container and no snapshot is of."
        } else {
            "This will remove all images without a name that no container and no snapshot is of."
        })?;
    }
    let pruned = engine.prune_images(args.all, &filters)?;
    images(&pruned.images)?;
    total(pruned.bytes)?;
    Ok(0)
}

/// In Docker's words.
pub(super) fn images(removed: &[Removed]) -> Result<(), Failure> {
    let lines = removed.iter().flat_map(|removed| {
        let untagged = removed.untagged.iter().map(|name| format!("untagged: {}", name.familiar()));
        untagged.chain(removed.deleted.map(|digest| format!("deleted: {digest}")))
    });
    list("Deleted Images:", &lines.collect::<Vec<_>>())
}

/// What went, under its heading; nothing if nothing did.
pub(super) fn list(heading: &str, lines: &[String]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    output::line(heading)?;
    lines.iter().try_for_each(|line| output::line(line))?;
    output::line("")
}

pub(super) fn total(bytes: u64) -> Result<(), Failure> {
    output::line(&format!("Total reclaimed space: {}", human::size(bytes)))
}
