// SPDX-License-Identifier: Apache-2.0
//! `isopod snapshot`.

use super::format::{self, Column, Fields, ListArgs};
use super::{Global, Outcome, human, output};
use clap::{Args, Subcommand};
use isopod_engine::SnapshotSummary;

/// Write down running containers, to go on from there later
#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    #[command(subcommand)]
    verb: SnapshotVerb,
}

#[derive(Debug, Subcommand)]
enum SnapshotVerb {
    /// Write down a running container, which goes on
    Create {
        container: String,
        /// Name of the snapshot
        name: String,
    },
    /// List snapshots
    Ls(ListArgs),
    /// Show snapshots as JSON
    Inspect {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove snapshots
    Rm {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

const FIELDS: [&str; 6] = ["Name", "Container", "Image", "Memory", "CreatedSince", "Size"];
const COLUMNS: [Column; 6] = [
    ("NAME", "Name"),
    ("CONTAINER", "Container"),
    ("IMAGE", "Image"),
    ("MEMORY", "Memory"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

pub(super) fn run(global: &Global, args: &SnapshotArgs) -> Outcome {
    let engine = global.engine()?;
    match &args.verb {
        SnapshotVerb::Create { container, name } => {
            engine.snapshot(container, name)?;
            output::line(name)?;
        }
        SnapshotVerb::Ls(args) => {
            let all: Vec<Fields> = engine.snapshots()?.iter().map(fields).collect();
            format::list(args, &all, &COLUMNS, &FIELDS)?;
        }
        SnapshotVerb::Inspect { names } => {
            let found = names.iter().map(|name| engine.inspect_snapshot(name));
            let found = found.collect::<Result<Vec<_>, _>>()?;
            output::line(&serde_json::to_string_pretty(&found).unwrap_or_default())?;
        }
        SnapshotVerb::Rm { names } => {
            return output::each(names, |name| engine.remove_snapshot(name));
        }
    }
    Ok(0)
}

fn fields(snapshot: &SnapshotSummary) -> Fields {
    vec![
        ("Name", snapshot.name.clone()),
        ("Container", snapshot.container.clone()),
        ("Image", snapshot.image.clone()),
        ("Memory", format!("{} MiB", snapshot.memory_mib)),
        ("CreatedSince", human::ago(snapshot.created, human::now())),
        ("Size", human::size(snapshot.size)),
    ]
}
