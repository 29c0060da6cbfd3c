// SPDX-License-Identifier: Apache-2.0
//! `isopod rm`.

use super::{Global, Outcome, output};
use clap::Args;

/// Remove containers
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// End a running container first
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(global: &Global, args: &RmArgs) -> Outcome {
    let engine = global.engine()?;
    output::each(&args.containers, |container| engine.remove(container, args.force))
}
