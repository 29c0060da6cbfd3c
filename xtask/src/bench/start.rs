// SPDX-License-Identifier: Apache-2.0
//! A start from a template, beside a cold one and beside runtimes without a machine: in turn, in one run, since times
//! of two runs do not compare.
//!
//! Where KVM emulates, the guest's part of a start is a thousand times what it is on hardware. So the host's part is
//! measured by itself, and the guest's is counted in instructions.

use super::boot::COLD;
use super::host;
use super::isopod::{Counters, Isopod, Run, TRUE};
use super::peers::Peer;
use super::statistics::{Interval, least, median, percentile};
use super::table::{self, Figure, cell};
use crate::{rootfs, say};
use anyhow::{Context, Result, ensure};
use std::fs;

/// A cold start takes seconds where KVM emulates, so there is one in so many rounds.
const COLD_EVERY: u32 = 10;
/// Guest-kernel instructions a second: of hardware, roughly, and where KVM emulates.
const HARDWARE: f64 = 2e9;
const EMULATED: f64 = 1.4e6;
/// Peers, and what a start from a template is to take on the host's side, as a part of theirs.
const PEERS: [(&str, f64); 2] = [("crun", 1.0), ("runc", 0.35)];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many starts from a template, and of each peer; cold, there is one in ten
    #[arg(long, default_value_t = 30)]
    rounds: u32,
}

#[derive(Debug)]
struct Measured {
    warm: Vec<Run>,
    cold: Vec<Run>,
    peers: Vec<(Peer, Vec<f64>)>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "at least one round is needed");
    host::hide_unified()?;
    let isopod = Isopod::build()?;
    let peers = peers(&isopod)?;
    isopod.make_template()?;
    host::load_before()?;
    let measured = measure(&isopod, peers, arguments.rounds)?;
    host::load("after")?;
    spread(&measured);
    marks(&measured);
    table::figures(&figures(&measured));
    say::line(on_hardware(&measured));
    Ok(())
}

fn peers(isopod: &Isopod) -> Result<Vec<(Peer, Vec<f64>)>> {
    let root = isopod.folder().join("root");
    fs::create_dir(&root).context("cannot make a folder for the image's files")?;
    rootfs::unpack(&root)?;
    let ready = PEERS.iter().map(|(name, _)| Peer::ready(name, isopod.folder(), &root));
    let ready: Vec<Option<Peer>> = ready.collect::<Result<_>>()?;
    Ok(ready.into_iter().flatten().map(|peer| (peer, Vec::new())).collect())
}

/// Every second round goes backwards, so that nobody always comes after the same one.
fn measure(isopod: &Isopod, peers: Vec<(Peer, Vec<f64>)>, rounds: u32) -> Result<Measured> {
    let mut measured = Measured { warm: Vec::new(), cold: Vec::new(), peers };
    let mut progress = say::Progress::begin("bench: starts in turn");
    for n in 0..rounds {
        progress.update(&format!("round {} of {rounds}", n + 1));
        let warm_first = n % 2 == 0;
        if warm_first {
            measured.warm.push(isopod.run(&[TRUE])?);
        } else {
            measured.peers.reverse();
        }
        for (peer, walls) in &mut measured.peers {
            walls.push(peer.run()?);
        }
        if !warm_first {
            measured.peers.reverse();
            measured.warm.push(isopod.run(&[TRUE])?);
        }
        if n % COLD_EVERY == 0 {
            measured.cold.push(isopod.run(&[COLD, TRUE])?);
        }
    }
    progress.done("");
    Ok(measured)
}

fn walls(runs: &[Run]) -> Vec<f64> {
    runs.iter().map(|run| run.wall).collect()
}

fn host_sides(runs: &[Run]) -> Vec<f64> {
    runs.iter().filter_map(Run::host_side).collect()
}

/// The 99th percentile of fewer than a hundred figures is the greatest of them.
fn spread(measured: &Measured) {
    let row = |what: &str, figures: &[f64]| {
        let cells = [least(figures), median(figures), percentile(figures, 99)].map(cell);
        (what.to_owned(), [vec![figures.len().to_string()], cells.to_vec()].concat())
    };
    let mut rows = vec![
        row("isopod run, from a template", &walls(&measured.warm)),
        row("  of it on the host's side", &host_sides(&measured.warm)),
        row("isopod run, cold", &walls(&measured.cold)),
        row("  of it on the host's side", &host_sides(&measured.cold)),
    ];
    rows.extend(measured.peers.iter().map(|(peer, walls)| row(&format!("{} run", peer.name), walls)));
    table::columns(&["SPAWN TO REAPED, ms", "RUNS", "MIN", "P50", "P99"], &rows);
}

/// Where it went. A cold start passes every mark there is.
fn marks(measured: &Measured) {
    let took = |runs: &[Run], what: &str| {
        let of = |run: &Run| run.report.timings.iter().find(|row| row.what == what).map(|row| row.took_ms);
        cell(median(&runs.iter().filter_map(of).collect::<Vec<_>>()))
    };
    let reaped = |runs: &[Run]| {
        let of = |run: &Run| Some(run.wall - run.report.at("machine gone")?);
        cell(median(&runs.iter().filter_map(of).collect::<Vec<_>>()))
    };
    let names = measured.cold.first().into_iter().flat_map(|run| run.report.timings.iter());
    let mut rows: Vec<_> = names
        .map(|row| {
            let cells = vec![took(&measured.warm, &row.what), took(&measured.cold, &row.what)];
            (format!("to {}", row.what), cells)
        })
        .collect();
    rows.push(("to reaped, with the spawn".to_owned(), vec![reaped(&measured.warm), reaped(&measured.cold)]));
    table::columns(&["WHERE IT WENT, medians, ms", "TEMPLATE", "COLD"], &rows);
}

fn counted(runs: &[Run], count: fn(&Counters) -> f64) -> f64 {
    median(&runs.iter().filter_map(|run| run.report.at_exit.as_ref().map(count)).collect::<Vec<_>>())
}

fn figures(measured: &Measured) -> Vec<Figure> {
    let ratio = |what: String, these: &[f64], to: &[f64]| {
        let Interval { value, low, high } = Interval::of_ratio(these, to);
        let minima = least(these) / least(to);
        Figure::new(what, value, "x").note(format!("95 % in {low:.2} to {high:.2}; of minima {minima:.2}"))
    };
    let (wall, host) = (walls(&measured.warm), host_sides(&measured.warm));
    let mut figures = Vec::new();
    for (Peer { name, .. }, theirs) in &measured.peers {
        let aim = PEERS.iter().find(|(peer, _)| peer == name).map_or(f64::NAN, |(_, aim)| *aim);
        figures.push(
            ratio(format!("host's side of a start from a template, to {name}'s"), &host, theirs).aim(aim),
        );
        figures.push(ratio(format!("  all of it, to {name}'s"), &wall, theirs));
    }
    figures
        .push(ratio("  all of it, to a cold one".to_owned(), &wall, &walls(&measured.cold)).aim(1.0 / 500.0));
    let warm = |count| counted(&measured.warm, count);
    figures.push(
        Figure::new(
            "guest-kernel instructions, resumed to exited, without ticks",
            warm(Counters::without_ticks) / 1e6,
            "M",
        )
        .aim(0.06)
        .note("the aim is to a first output"),
    );
    figures.push(Figure::new("exits", warm(|c| c.exits), ""));
    figures.push(Figure::new("image requests", warm(|c| c.image_requests), ""));
    figures
}

/// What cannot be measured where KVM emulates, reckoned.
fn on_hardware(measured: &Measured) -> String {
    let instructions = counted(&measured.warm, Counters::without_ticks);
    let (there, here) = (instructions / HARDWARE * 1e3, instructions / EMULATED * 1e3);
    let host = median(&host_sides(&measured.warm));
    format!(
        "on hardware KVM (~2 G guest-kernel instructions a second, ~1.4 M where KVM emulates): {:.2} M take {there:.1} ms \
         there and {here:.0} ms emulated; with the host's side {:.1} ms there, exits and page faults not reckoned",
        instructions / 1e6,
        host + there,
    )
}
