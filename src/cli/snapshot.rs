// SPDX-License-Identifier: Apache-2.0
//! `isopod snapshot`.

use super::format::{self, Fields};
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
    Ls(LsArgs),
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

#[derive(Debug, Args)]
struct LsArgs {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// `json`, or text with fields: `{{.Name}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const FIELDS: [&str; 6] = ["Name", "Container", "Image", "Memory", "CreatedSince", "Size"];

pub(super) fn run(global: &Global, args: &SnapshotArgs) -> Outcome {
    let engine = global.engine()?;
    match &args.verb {
        SnapshotVerb::Create { container, name } => {
            engine.snapshot(container, name)?;
            output::line(name)?;
        }
        SnapshotVerb::Ls(args) => ls(&engine.snapshots()?, args)?,
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

fn ls(all: &[SnapshotSummary], args: &LsArgs) -> Result<(), super::error::Failure> {
    let all: Vec<Fields> = all.iter().map(fields).collect();
    match (&args.format, args.quiet) {
        (Some(format), _) => format::show(format, &all, &FIELDS),
        (None, true) => format::show("{{.Name}}", &all, &FIELDS),
        (None, false) => {
            let heading = ["NAME", "CONTAINER", "IMAGE", "MEMORY", "CREATED", "SIZE"].map(str::to_owned);
            let rows = all.iter().map(|fields| fields.iter().map(|(_, value)| value.clone()).collect());
            output::table(&[heading.to_vec()].into_iter().chain(rows).collect::<Vec<_>>())
        }
    }
}

fn fields(snapshot: &SnapshotSummary) -> Fields {
    let since = human::duration(human::now().saturating_sub(snapshot.created));
    vec![
        ("Name", snapshot.name.clone()),
        ("Container", snapshot.container.clone()),
        ("Image", snapshot.image.clone()),
        ("Memory", format!("{} MiB", snapshot.memory_mib)),
        ("CreatedSince", format!("{since} ago")),
        ("Size", human::size(snapshot.size)),
    ]
}
