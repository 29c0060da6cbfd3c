// SPDX-License-Identifier: Apache-2.0
//! `isopod images`.

use super::format::{self, Column, Fields, ListArgs};
use super::{Global, Outcome, human};
use clap::Args;
use isopod_engine::Summary;

/// List images
#[derive(Debug, Args)]
pub(super) struct ImagesArgs {
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
const SHORT: usize = 12;
const FIELDS: [&str; 7] = ["ID", "Repository", "Tag", "Digest", "CreatedAt", "CreatedSince", "Size"];

pub(super) fn run(global: &Global, args: &ImagesArgs) -> Outcome {
    let images = global.engine()?.images()?;
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
    let since = image.created.as_deref().and_then(human::rfc3339);
    let since = since.map(|at| format!("{} ago", human::duration(human::now().saturating_sub(at))));
    vec![
        ("ID", if whole { digest.clone() } else { hex[..hex.len().min(SHORT)].to_owned() }),
        ("Repository", reference.map_or_else(none, |r| r.familiar_name())),
        ("Tag", reference.and_then(|r| r.tag()).map_or_else(none, str::to_owned)),
        ("Digest", digest.clone()),
        ("CreatedAt", image.created.clone().unwrap_or_else(|| "N/A".to_owned()).escape_debug().to_string()),
        ("CreatedSince", since.unwrap_or_else(|| "N/A".to_owned())),
        ("Size", human::size(image.size)),
    ]
}
