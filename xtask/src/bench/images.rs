// SPDX-License-Identifier: Apache-2.0
//! Pulling a distribution's image from a registry on this machine, beside those who do the same: in turn, in one run.
//!
//! Each begins with an empty store, and ends with what a container could start from. What is counted is the whole of it:
//! processes, their children, and a daemon where there is one.

mod image;
mod pullers;
mod registry;
mod usage;

use super::host;
use super::isopod::Isopod;
use super::statistics::{Interval, median};
use super::table::{self, cell};
use crate::say;
use anyhow::{Context, Result, ensure};
use pullers::Puller;
use registry::Registry;
use std::fs;
use std::path::Path;
use usage::Usage;

/// What pull and unpack are to take, as a part of what these take.
const AIMS: [(&str, f64); 3] = [("skopeo + umoci", 0.15), ("containerd", 0.35), ("podman", 0.35)];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many pulls by each
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "at least one round is needed");
    let isopod = Isopod::build()?;
    let layout = image::layout()?;
    let registry = Registry::start(isopod.folder(), &layout)?;
    let pullers: Vec<Puller> = Puller::ALL.into_iter().filter(|puller| puller.is_there()).collect();
    host::load_before()?;
    let mut usages: Vec<Vec<Usage>> = vec![Vec::new(); pullers.len()];
    let mut syncs = vec![f64::NAN; pullers.len()];
    let mut progress = say::Progress::begin("bench: pulls in turn");
    for round in 0..arguments.rounds {
        // Every second round goes backwards, so that nobody always comes after the same one.
        let mut order: Vec<usize> = (0..pullers.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for n in order {
            progress.update(&format!("round {} of {}, {}", round + 1, arguments.rounds, pullers[n].name()));
            usages[n].push(once(pullers[n], &isopod, &registry)?);
            if round == 0 {
                progress.update(&format!("counting what {} syncs", pullers[n].name()));
                syncs[n] = counted(pullers[n], &isopod, &registry)?;
            }
        }
    }
    progress.done("");
    host::load("after")?;
    report(&pullers, &usages, &syncs);
    Ok(())
}

fn once(puller: Puller, isopod: &Isopod, registry: &Registry) -> Result<Usage> {
    in_a_folder(puller, isopod, |folder| puller.pull(isopod, folder, &registry.name()))
}

/// By a run of its own: looking costs time.
fn counted(puller: Puller, isopod: &Isopod, registry: &Registry) -> Result<f64> {
    in_a_folder(puller, isopod, |folder| puller.count_syncs(isopod, folder, &registry.name()))
}

fn in_a_folder<T>(puller: Puller, isopod: &Isopod, act: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let folder = isopod.folder().join("pull");
    fs::create_dir_all(&folder).context("cannot make a folder for a pull")?;
    let result = act(&folder);
    puller.clean(&folder)?;
    result.with_context(|| format!("{} failed", puller.name()))
}

fn report(pullers: &[Puller], usages: &[Vec<Usage>], syncs: &[f64]) {
    let column = |usages: &[Usage], of: fn(&Usage) -> f64| usages.iter().map(of).collect::<Vec<f64>>();
    let middle = |usages: &[Usage], of: fn(&Usage) -> f64| median(&column(usages, of));
    let row = |((puller, usages), syncs): ((&Puller, &Vec<Usage>), &f64)| {
        let cells =
            [middle(usages, |u| u.wall), middle(usages, |u| u.cpu), middle(usages, |u| u.written), *syncs];
        (puller.name().to_owned(), cells.map(cell).to_vec())
    };
    let rows: Vec<_> = pullers.iter().zip(usages).zip(syncs).map(row).collect();
    table::columns(&["PULL AND UNPACK, medians", "WALL, s", "CPU, s", "WRITTEN, MiB", "FSYNCS"], &rows);
    let ours = pullers.iter().position(|puller| *puller == Puller::Isopod);
    let Some(ours) = ours.map(|n| column(&usages[n], |u| u.wall)) else { return };
    for (name, aim) in AIMS {
        let Some(n) = pullers.iter().position(|puller| puller.name() == name) else { continue };
        let Interval { value, low, high } = Interval::of_ratio(&ours, &column(&usages[n], |u| u.wall));
        let over = if value > aim { "over" } else { "" };
        say::line(
            format!("wall, of {name}'s: {value:.2} ({low:.2} to {high:.2}), aim {aim} {over}").trim_end(),
        );
    }
}
