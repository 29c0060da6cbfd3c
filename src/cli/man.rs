// SPDX-License-Identifier: Apache-2.0
//! `isopod man`: the man pages, for whoever packages isopod.

use super::{Outcome, command, output};
use clap::{Args, ValueHint};
use clap_mangen::{Man, generate_to};
use isopod_engine::{EngineError, Kind};
use std::fs;
use std::path::PathBuf;

/// Print the man page, or write one for each verb into a folder
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Outcome {
    let failed = |e| EngineError::new(Kind::Io, "cannot write the man pages").because(e);
    match &args.folder {
        Some(folder) => {
            fs::create_dir_all(folder).and_then(|()| generate_to(command(), folder)).map_err(failed)?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(command()).render(&mut page).map_err(failed)?;
            output::data(&page)?;
        }
    }
    Ok(0)
}
