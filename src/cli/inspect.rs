// SPDX-License-Identifier: Apache-2.0
//! `isopod inspect` and `isopod image inspect`.

use super::error::Failure;
use super::{Global, Outcome, document, output};
use clap::{Args, ValueEnum};
use isopod_engine::{Engine, EngineError, ImageInspect};

/// Show images as JSON
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Only what is this
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kind: Option<Type>,
    #[command(flatten)]
    asked: ImageInspectArgs,
}

/// Show images as JSON
#[derive(Debug, Args)]
pub(super) struct ImageInspectArgs {
    /// Names, digests or beginnings of digests
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// `json`, or text with fields in it, as `{{.Config.Cmd}}` or `{{json .RootFS}}`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Type {
    Image,
    Container,
}

pub(super) fn run(global: &Global, args: &InspectArgs) -> Outcome {
    each(global, &args.asked, |engine, name| match args.kind {
        None => engine.inspect(name),
        Some(Type::Image) => engine.inspect_image(name),
        Some(Type::Container) => Err(engine.inspect_container(name)),
    })
}

pub(super) fn image(global: &Global, args: &ImageInspectArgs) -> Outcome {
    each(global, args, Engine::inspect_image)
}

/// What is found is shown, whatever is not.
fn each(
    global: &Global,
    args: &ImageInspectArgs,
    inspect: impl Fn(&Engine, &str) -> Result<ImageInspect, EngineError>,
) -> Outcome {
    let engine = global.engine()?;
    let (mut found, mut code) = (Vec::new(), 0);
    for name in &args.names {
        match inspect(&engine, name) {
            Ok(image) => found.push(image),
            Err(error) => {
                let failure = Failure::from(error);
                output::talk(&failure.to_string());
                code = failure.code();
            }
        }
    }
    document::show(&found, args.format.as_deref())?;
    Ok(code)
}
