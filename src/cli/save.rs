// SPDX-License-Identifier: Apache-2.0
//! `isopod save`.

use super::layers::LoadProgress;
use super::output::Stream;
use super::{Global, Outcome};
use clap::{Args, ValueEnum, ValueHint};
use isopod_engine::{ArchiveForm, EngineError, Kind};
use std::path::{Path, PathBuf};

/// Save images as an archive
#[derive(Debug, Args)]
pub(super) struct SaveArgs {
    /// Names, digests or beginnings of digests; a name without a tag is all tags of its repository
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Archive to write; stdout if left out
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Who is to read it
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Form::DockerArchive)]
    format: Form,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// What `docker save` writes, an OCI archive too
    DockerArchive,
    /// Without Docker's manifest.json
    OciArchive,
}

pub(super) fn run(global: &Global, args: &SaveArgs) -> Outcome {
    let form = match args.format {
        Form::DockerArchive => ArchiveForm::Docker,
        Form::OciArchive => ArchiveForm::Oci,
    };
    let progress = LoadProgress::saving(args.quiet);
    if let Some(path) = args.output.as_deref().filter(|path| *path != Path::new("-")) {
        global.engine()?.save(&args.images, form, path, &progress)?;
        return Ok(0);
    }
    let Some(mut stream) = Stream::open() else {
        let error = EngineError::new(Kind::Invalid, "an archive is nothing for a terminal");
        return Err(error.hint("name a file with -o, or redirect stdout").into());
    };
    let written = global.engine()?.save_stream(&args.images, form, &mut stream, &progress);
    stream.close(written)?;
    Ok(0)
}
