// SPDX-License-Identifier: Apache-2.0
//! `isopod images`.

use super::format::{self, Fields};
use super::{Global, Outcome, human, output};
use clap::Args;
use isopod_engine::Summary;

/// List images
#[derive(Debug, Args)]
pub(super) struct ImagesArgs {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show ids whole
    #[arg(long)]
    no_trunc: bool,
    /// `json`, or text with fields: `{{.Repository}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const NONE: &str = "<none>";
const SHORT: usize = 12;
const FIELDS: [&str; 7] = ["Repository", "Tag", "Digest", "ID", "CreatedAt", "CreatedSince", "Size"];

pub(super) fn run(global: &Global, args: &ImagesArgs) -> Outcome {
    let images: Vec<Fields> =
        global.engine()?.images()?.iter().map(|image| fields(image, args.no_trunc)).collect();
    let format = match (&args.format, args.quiet, args.digests) {
        (Some(format), ..) => format.as_str(),
        (None, true, _) => "{{.ID}}",
        (None, false, digests) => {
            let mut rows = vec![heading(digests)];
            rows.extend(images.iter().map(|image| row(image, digests)));
            output::table(&rows)?;
            return Ok(0);
        }
    };
    format::show(format, &images, &FIELDS)?;
    Ok(0)
}

fn heading(digests: bool) -> Vec<String> {
    let mut heading = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if digests {
        heading.insert(2, "DIGEST");
    }
    heading.into_iter().map(str::to_owned).collect()
}

fn row(image: &Fields, digests: bool) -> Vec<String> {
    let shown = ["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"];
    let shown = shown.into_iter().filter(|name| digests || *name != "Digest");
    shown.filter_map(|name| image.iter().find(|(n, _)| *n == name)).map(|(_, value)| value.clone()).collect()
}

fn fields(image: &Summary, whole: bool) -> Fields {
    let none = || NONE.to_owned();
    let reference = image.reference.as_ref();
    let digest = image.digest.to_string();
    let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
    let since = image.created.as_deref().and_then(human::rfc3339);
    let since = since.map(|at| format!("{} ago", human::duration(human::now().saturating_sub(at))));
    vec![
        ("Repository", reference.map_or_else(none, |r| r.familiar_name())),
        ("Tag", reference.and_then(|r| r.tag()).map_or_else(none, str::to_owned)),
        ("Digest", digest.clone()),
        ("ID", if whole { digest.clone() } else { hex[..hex.len().min(SHORT)].to_owned() }),
        ("CreatedAt", image.created.clone().unwrap_or_else(|| "N/A".to_owned()).escape_debug().to_string()),
        ("CreatedSince", since.unwrap_or_else(|| "N/A".to_owned())),
        ("Size", human::size(image.size)),
    ]
}
