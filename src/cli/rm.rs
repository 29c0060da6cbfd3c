// SPDX-License-Identifier: Apache-2.0
//! `isopod rm`.

use super::error::Failure;
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
    let mut code = 0;
    for container in &args.containers {
        match engine.remove(container, args.force) {
            Ok(_) => output::line(container)?,
            // One that is not there does not keep the others.
            Err(error) => {
                let failure = Failure::from(error);
                output::talk(&failure.to_string());
                code = failure.code();
            }
        }
    }
    Ok(code)
}
