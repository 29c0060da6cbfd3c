// SPDX-License-Identifier: Apache-2.0
//! `isopod pause` and `isopod unpause`.

use super::{Global, Outcome, output};
use clap::Args;

/// Stop the machines of running containers where they are
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Let paused containers go on
#[derive(Debug, Args)]
pub(super) struct UnpauseArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn pause(global: &Global, args: &PauseArgs) -> Outcome {
    let engine = global.engine()?;
    output::each(&args.containers, |container| engine.pause(container))
}

pub(super) fn unpause(global: &Global, args: &UnpauseArgs) -> Outcome {
    let engine = global.engine()?;
    output::each(&args.containers, |container| engine.unpause(container))
}
