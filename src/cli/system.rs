// SPDX-License-Identifier: Apache-2.0
//! `isopod system`.

mod df;
mod prune;
mod verify;

use super::{Global, Outcome};
use clap::{Args, Subcommand};

/// Look after all that isopod keeps
#[derive(Debug, Args)]
pub(super) struct SystemArgs {
    #[command(subcommand)]
    verb: SystemVerb,
}

#[derive(Debug, Subcommand)]
enum SystemVerb {
    Df(df::DfArgs),
    Prune(prune::SystemPruneArgs),
    Verify(verify::VerifyArgs),
}

pub(super) fn run(global: &Global, args: &SystemArgs) -> Outcome {
    match &args.verb {
        SystemVerb::Df(args) => df::run(global, args),
        SystemVerb::Prune(args) => prune::run(global, args),
        SystemVerb::Verify(args) => verify::run(global, args),
    }
}
