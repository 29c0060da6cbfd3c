// SPDX-License-Identifier: Apache-2.0
//! `isopod images`.

use super::format::{self, Column, Fields, ListArgs};
use super::{Global, Outcome, human};
use clap::Args;
use isopod_engine::{ImageFilters, Summary};

/// List images
#[derive(Debug, Args)]
pub(super) struct ImagesArgs {
    /// Only those of this name, in which `*` stands for any part
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// As Docker has it; nothing is left out without it either
    #[arg(short, long)]
    all: bool,
    /// Only some: before=IMAGE, since=IMAGE, until=TIME, dangling=BOOL, label=KEY[=VALUE], reference=PATTERN
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show ids whole
    #[arg(long)]
    no_trunc: bool,
}

const NONE: &str = "<none>";
const FIELDS: [&str; 7] = ["ID", "Repository", "Tag", "Digest", "CreatedAt", "CreatedSince", "Size"];

pub(super) fn run(global: &Global, args: &ImagesArgs) -> Outcome {
    let filters = ImageFilters::parse(&args.filter, ImageFilters::LISTED)?;
    let filters = args.name.iter().try_fold(filters, |filters, name| filters.named(name))?;
    let images = global.engine()?.images(&filters)?;
    let images: Vec<Fields> = images.iter().map(|image| fields(image, args.no_trunc)).collect();
    format::list(&args.list, &images, &columns(args.digests), &FIELDS)?;
    Ok(0)
}

fn columns(digests: bool) -> Vec<Column> {
    let mut columns = vec![
        ("REPOSITORY", "Repository"),
        ("TAG", "Tag"),
        ("IMAGE ID", "ID"),
        ("CREATED", "CreatedSince"),
        ("SIZE", "Size"),
    ];
    if digests {
        columns.insert(2, ("DIGEST", "Digest"));
    }
    columns
}

fn fields(image: &Summary, whole: bool) -> Fields {
    let none = || NONE.to_owned();
    let reference = image.reference.as_ref();
    let digest = image.digest.to_string();
    let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
    vec![
        ("ID", if whole { digest.clone() } else { human::short(hex).to_owned() }),
        ("Repository", reference.map_or_else(none, |r| r.familiar_name())),
        ("Tag", reference.and_then(|r| r.tag()).map_or_else(none, str::to_owned)),
        ("Digest", digest.clone()),
        ("CreatedAt", human::plain(image.created.as_deref().unwrap_or("N/A"))),
        ("CreatedSince", human::said_ago(image.created.as_deref())),
        ("Size", human::size(image.size)),
    ]
}
