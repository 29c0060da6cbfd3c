// SPDX-License-Identifier: Apache-2.0
//! `isopod system df`.

use crate::cli::error::Failure;
use crate::cli::format::{self, Column, Fields};
use crate::cli::{Global, Outcome, human, output};
use clap::Args;
use isopod_engine::{DiskUsage, ImageUsage, Share, rfc3339};

/// Show what is taken of the disk
#[derive(Debug, Args)]
pub(super) struct DfArgs {
    /// Each image, container, snapshot and template
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
    /// `json`, or text with fields in it, each as `{{.FIELD}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const FIELDS: [&str; 5] = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
const COLUMNS: [Column; 5] = [
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];
/// Of a digest or an id.
const SHORT: usize = 12;

pub(super) fn run(global: &Global, args: &DfArgs) -> Outcome {
    let usage = global.engine()?.disk_usage()?;
    if args.verbose {
        verbose(&usage)?;
        return Ok(0);
    }
    let shares: Vec<Fields> = usage.shares().iter().map(fields).collect();
    match &args.format {
        Some(text) => format::show(text, &shares, &FIELDS)?,
        None => format::table(&shares, &COLUMNS)?,
    }
    Ok(0)
}

fn fields(share: &Share) -> Fields {
    let percent = share.reclaimable.saturating_mul(100).checked_div(share.bytes);
    let percent = percent.map(|percent| format!(" ({percent}%)")).unwrap_or_default();
    vec![
        ("Type", share.kind.to_owned()),
        ("TotalCount", share.total.to_string()),
        ("Active", share.active.to_string()),
        ("Size", human::size(share.bytes)),
        ("Reclaimable", format!("{}{percent}", human::size(share.reclaimable))),
    ]
}

fn verbose(usage: &DiskUsage) -> Result<(), Failure> {
    let heads = |heads: &[&str]| heads.iter().map(|&head| head.to_owned()).collect::<Vec<_>>();
    let now = human::now();
    let ago = |at: u64| format!("{} ago", human::duration(now.saturating_sub(at)));

    output::line("Images space usage:\n")?;
    let images = usage.images.images.iter().flat_map(|image| {
        let created = image.created.as_deref().and_then(rfc3339).map_or_else(|| "N/A".to_owned(), ago);
        names(image).into_iter().map(move |name| image_row(image, &name, &created, usage))
    });
    let head = heads(&["IMAGE", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]);
    output::table(&[head].into_iter().chain(images).collect::<Vec<_>>())?;

    output::line("\nContainers space usage:\n")?;
    let containers = usage.containers.iter().map(|container| {
        let record = &container.record;
        vec![
            record.id.short().to_owned(),
            human::plain(&record.spec.image),
            human::size(container.bytes),
            ago(record.created),
            record.state.name().to_owned(),
            record.name.to_string(),
        ]
    });
    let head = heads(&["CONTAINER ID", "IMAGE", "SIZE", "CREATED", "STATUS", "NAMES"]);
    output::table(&[head].into_iter().chain(containers).collect::<Vec<_>>())?;

    output::line("\nSnapshots space usage:\n")?;
    let snapshots = usage.snapshots.iter().map(|snapshot| {
        vec![
            snapshot.name.clone(),
            human::plain(&snapshot.image),
            human::size(snapshot.size),
            ago(snapshot.created),
        ]
    });
    let head = heads(&["NAME", "IMAGE", "SIZE", "CREATED"]);
    output::table(&[head].into_iter().chain(snapshots).collect::<Vec<_>>())?;

    output::line("\nTemplates space usage:\n")?;
    let templates = usage.templates.iter().map(|template| {
        let usable = if template.usable { "yes" } else { "no" };
        vec![template.key.clone(), human::size(template.size), ago(template.created), usable.to_owned()]
    });
    let head = heads(&["KEY", "SIZE", "CREATED", "USABLE"]);
    output::table(&[head].into_iter().chain(templates).collect::<Vec<_>>())?;

    let stray = usage.stray;
    output::line(&format!("\nStray files: {}, {}", stray.count, human::size(stray.bytes)))
}

/// One that has no name has a row as well.
fn names(image: &ImageUsage) -> Vec<String> {
    let names: Vec<_> = image.references.iter().map(|name| name.familiar()).collect();
    if names.is_empty() { vec!["<none>".to_owned()] } else { names }
}

fn image_row(image: &ImageUsage, name: &str, created: &str, usage: &DiskUsage) -> Vec<String> {
    let digest = image.digest.to_string();
    let containers = usage.containers.iter().filter(|container| container.record.image_digest == digest);
    vec![
        name.to_owned(),
        image.digest.hex()[..SHORT].to_owned(),
        created.to_owned(),
        human::size(image.bytes),
        human::size(image.shared),
        human::size(image.bytes - image.shared),
        containers.count().to_string(),
    ]
}
