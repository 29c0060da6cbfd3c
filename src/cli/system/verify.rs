// SPDX-License-Identifier: Apache-2.0
//! `isopod system verify`.

use crate::cli::format::{self, Column, Fields};
use crate::cli::layers::LoadProgress;
use crate::cli::{Global, Outcome, human, output};
use clap::Args;
use isopod_engine::{Damage, Part, Reference, Repair};

/// Check every byte of every image; the exit code is 1 if anything is wrong and stays so
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Make again what is damaged, from what is here or from the registry in the image's name
    #[arg(long)]
    repair: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// `json`, or text with fields in it, each as `{{.FIELD}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const FIELDS: [&str; 6] = ["Image", "ID", "Part", "Digest", "Wrong", "Repaired"];
const COLUMNS: [Column; 5] = [
    ("IMAGE", "Image"),
    ("PART", "Part"),
    ("DIGEST", "Digest"),
    ("WRONG", "Wrong"),
    ("REPAIRED", "Repaired"),
];

pub(super) fn run(global: &Global, args: &VerifyArgs) -> Outcome {
    let found = global.engine()?.verify(args.repair, &LoadProgress::verifying(args.quiet))?;
    let rows: Vec<Fields> = found.iter().map(fields).collect();
    match &args.format {
        Some(text) => format::show(text, &rows, &FIELDS)?,
        None if rows.is_empty() && args.quiet => {}
        None if rows.is_empty() => output::talk("nothing is wrong"),
        None => format::table(&rows, &COLUMNS)?,
    }
    Ok(u8::from(found.iter().any(|damage| damage.repair != Repair::Done)))
}

fn fields(damage: &Damage) -> Fields {
    let names: Vec<String> = damage.names.iter().map(Reference::familiar).collect();
    let repaired = match &damage.repair {
        Repair::NotAsked => "no".to_owned(),
        Repair::Done => "yes".to_owned(),
        Repair::Failed(why) => format!("no: {}", human::plain(why)),
    };
    vec![
        ("Image", if names.is_empty() { damage.image.to_string() } else { names.join(",") }),
        ("ID", damage.image.to_string()),
        ("Part", part(damage.part).to_owned()),
        ("Digest", damage.digest.to_string()),
        ("Wrong", human::plain(&damage.why)),
        ("Repaired", repaired),
    ]
}

fn part(part: Part) -> &'static str {
    match part {
        Part::Manifest => "manifest",
        Part::Configuration => "configuration",
        Part::Layer => "layer",
        Part::LayerData => "layer data",
        Part::LayerIndex => "layer index",
        Part::ImageIndex => "image index",
    }
}
