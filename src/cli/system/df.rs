// SPDX-License-Identifier: Apache-2.0
//! `isopod system df`.

use crate::cli::error::Failure;
use crate::cli::format::{self, Column, Fields};
use crate::cli::{Global, Outcome, human, output};
use clap::Args;
use isopod_engine::{ContainerUsage, DiskUsage, ImageUsage, Share, SnapshotSummary, TemplateSummary};

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
    let heads = ["IMAGE", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"];
    section("Images", &heads, images(usage))?;
    let heads = ["CONTAINER ID", "IMAGE", "SIZE", "CREATED", "STATUS", "NAMES"];
    section("Containers", &heads, usage.containers.iter().map(container).collect())?;
    section(
        "Snapshots",
        &["NAME", "IMAGE", "SIZE", "CREATED"],
        usage.snapshots.iter().map(snapshot).collect(),
    )?;
    section(
        "Templates",
        &["KEY", "SIZE", "CREATED", "USABLE"],
        usage.templates.iter().map(template).collect(),
    )?;
    output::line(&format!("Stray files: {}, {}", usage.stray.count, human::size(usage.stray.bytes)))
}

fn section(what: &str, heads: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    output::line(&format!("{what} space usage:\n"))?;
    let heads = heads.iter().map(|&head| head.to_owned()).collect();
    output::table(&[heads].into_iter().chain(rows).collect::<Vec<_>>())?;
    output::line("")
}

fn images(usage: &DiskUsage) -> Vec<Vec<String>> {
    let rows = usage
        .images
        .images
        .iter()
        .flat_map(|image| names(image).into_iter().map(move |name| image_row(image, name, usage)));
    rows.collect()
}

fn container(container: &ContainerUsage) -> Vec<String> {
    let record = &container.record;
    vec![
        record.id.short().to_owned(),
        human::plain(&record.spec.image),
        human::size(container.bytes),
        human::ago(record.created, human::now()),
        record.state.name().to_owned(),
        record.name.to_string(),
    ]
}

fn snapshot(snapshot: &SnapshotSummary) -> Vec<String> {
    let SnapshotSummary { name, image, size, created, .. } = snapshot;
    vec![name.clone(), human::plain(image), human::size(*size), human::ago(*created, human::now())]
}

fn template(template: &TemplateSummary) -> Vec<String> {
    let usable = if template.usable { "yes" } else { "no" };
    vec![
        template.key.clone(),
        human::size(template.size),
        human::ago(template.created, human::now()),
        usable.to_owned(),
    ]
}

/// One that has no name has a row as well.
fn names(image: &ImageUsage) -> Vec<String> {
    let names: Vec<_> = image.references.iter().map(|name| name.familiar()).collect();
    if names.is_empty() { vec!["<none>".to_owned()] } else { names }
}

fn image_row(image: &ImageUsage, name: String, usage: &DiskUsage) -> Vec<String> {
    let digest = image.digest.to_string();
    let containers = usage.containers.iter().filter(|container| container.record.image_digest == digest);
    vec![
        name,
        human::short(&image.digest.hex()).to_owned(),
        human::said_ago(image.created.as_deref()),
        human::size(image.bytes),
        human::size(image.shared),
        human::size(image.bytes - image.shared),
        containers.count().to_string(),
    ]
}
