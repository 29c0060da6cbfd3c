// SPDX-License-Identifier: Apache-2.0
//! `isopod inspect` and `isopod image inspect`.

use super::error::Failure;
use super::{Global, Outcome, document, output};
use clap::{Args, ValueEnum};
use isopod_engine::{ContainerInspect, Engine, EngineError, ImageInspect, Kind};
use serde::Serialize;

/// Show containers and images as JSON
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Only what is this
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kind: Option<Type>,
    /// Names or ids of containers, names or digests of images, or beginnings of ids and digests
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// `json`, or text with fields in it, as `{{.State.Status}}`, `{{json .Config.Cmd}}` or `{{.Isolation}}`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
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

/// What is shown.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Found {
    Image(Box<ImageInspect>),
    Container(Box<ContainerInspect>),
}

pub(super) fn run(global: &Global, args: &InspectArgs) -> Outcome {
    let container =
        |engine: &Engine, name: &str| engine.inspect_container(name).map(Box::new).map(Found::Container);
    let InspectArgs { kind, names, format } = args;
    each(global, names, format.as_deref(), |engine, name| match kind {
        // A container comes first, as with Docker.
        None => match container(engine, name) {
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Invalid) => of_image(engine, name),
            result => result,
        },
        Some(Type::Image) => of_image(engine, name),
        Some(Type::Container) => container(engine, name),
    })
}

pub(super) fn image(global: &Global, args: &ImageInspectArgs) -> Outcome {
    each(global, &args.names, args.format.as_deref(), of_image)
}

fn of_image(engine: &Engine, name: &str) -> Result<Found, EngineError> {
    engine.inspect_image(name).map(Box::new).map(Found::Image)
}

/// What is found is shown, whatever is not.
fn each(
    global: &Global,
    names: &[String],
    format: Option<&str>,
    inspect: impl Fn(&Engine, &str) -> Result<Found, EngineError>,
) -> Outcome {
    let engine = global.engine()?;
    let (mut found, mut code) = (Vec::new(), 0);
    for name in names {
        match inspect(&engine, name) {
            Ok(thing) => found.push(thing),
            Err(error) => {
                let failure = Failure::from(error);
                output::talk(&failure.to_string());
                code = failure.code();
            }
        }
    }
    document::show(&found, format)?;
    Ok(code)
}
