// SPDX-License-Identifier: Apache-2.0
//! `isopod load`.

use super::layers::LoadProgress;
use super::output;
use super::{Global, Outcome};
use clap::{Args, ValueHint};
use isopod_engine::{EngineError, Kind, Loaded};
use std::io::stdin;
use std::path::{Path, PathBuf};

/// Load images from an OCI layout folder, an OCI archive or a `docker save` archive
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Archive or folder to read; stdin if left out
    #[arg(short, long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    input: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(global: &Global, args: &LoadArgs) -> Outcome {
    let input = args.input.as_deref().filter(|path| *path != Path::new("-"));
    if input.is_none() && output::stdin_is_terminal() {
        let error = EngineError::new(Kind::Invalid, "there is nothing to load: stdin is a terminal");
        return Err(error.hint("name an archive or a folder with -i").into());
    }
    let engine = global.engine()?;
    let progress = LoadProgress::new(args.quiet);
    let loaded = match input {
        Some(path) => engine.load(path, &progress)?,
        None => engine.load_stream(stdin().lock(), &progress)?,
    };
    loaded.iter().try_for_each(|image| output::line(&told(image)))?;
    Ok(0)
}

fn told(image: &Loaded) -> String {
    match &image.reference {
        Some(reference) => format!("Loaded image: {}", reference.familiar()),
        None => format!("Loaded image ID: {}", image.digest),
    }
}
