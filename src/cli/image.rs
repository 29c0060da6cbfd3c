// SPDX-License-Identifier: Apache-2.0
//! `isopod image`: the verbs of images under their noun. Each is the same as the one without it.

use super::{Global, Outcome, history, images, inspect, load, prune, pull, push, rmi, save, tag};
use clap::{Args, Subcommand};

/// Look after images
#[derive(Debug, Args)]
pub(super) struct ImageArgs {
    #[command(subcommand)]
    verb: ImageVerb,
}

/// In the order of the help.
#[derive(Debug, Subcommand)]
enum ImageVerb {
    #[command(visible_alias = "list")]
    Ls(images::ImagesArgs),
    #[command(visible_alias = "remove")]
    Rm(rmi::RmiArgs),
    Prune(prune::PruneArgs),
    Inspect(inspect::ImageInspectArgs),
    History(history::HistoryArgs),
    Load(load::LoadArgs),
    Save(save::SaveArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    Tag(tag::TagArgs),
}

pub(super) fn run(global: &Global, args: &ImageArgs) -> Outcome {
    match &args.verb {
        ImageVerb::Ls(args) => images::run(global, args),
        ImageVerb::Rm(args) => rmi::run(global, args),
        ImageVerb::Prune(args) => prune::run(global, args),
        ImageVerb::Inspect(args) => inspect::image(global, args),
        ImageVerb::History(args) => history::run(global, args),
        ImageVerb::Load(args) => load::run(global, args),
        ImageVerb::Save(args) => save::run(global, args),
        ImageVerb::Pull(args) => pull::run(global, args),
        ImageVerb::Push(args) => push::run(global, args),
        ImageVerb::Tag(args) => tag::run(global, args),
    }
}
