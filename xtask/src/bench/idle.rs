// SPDX-License-Identifier: Apache-2.0
//! What containers cost that wait for something: as many as asked for, all from one template, each a `cat` on a pipe
//! that nothing comes through.

mod fleet;

use super::host;
use super::isopod::{Isopod, TRUE};
use super::statistics::{median, percentile};
use super::stats::Counts;
use super::table::{self, Figure};
use crate::say;
use anyhow::{Context, Result, ensure};
use fleet::{Fleet, Idle, kib, private_dirty_mib};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const SETTLE: Duration = Duration::from_secs(20);
const WATCH: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many containers
    #[arg(long, default_value_t = 50)]
    count: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.count > 0, "at least one container is needed");
    let isopod = Isopod::build()?;
    let progress = say::Progress::begin("bench: making the template");
    isopod.run(&[TRUE])?;
    progress.done("");
    host::load_before()?;
    // What that machine had is given back a little after its end.
    pause("letting the host settle", Duration::from_secs(5));
    let before = available_mib()?;
    let fleet = Fleet::start(&isopod, arguments.count)?;
    pause("letting them settle", SETTLE);
    let after = available_mib()?;
    let mut figures = memory(&fleet, before - after)?;
    figures.extend(watch(&fleet)?);
    fleet.end(&isopod)?;
    figures.push(Figure::new("memory that had not come back at the end", before - available_mib()?, "MiB"));
    host::load("after")?;
    say::line(format_args!("{} idle containers, one template", arguments.count));
    table::figures(&figures);
    Ok(())
}

fn memory(fleet: &Fleet, less: f64) -> Result<Vec<Figure>> {
    let private = |pid: fn(&Idle) -> u32| -> Result<Vec<f64>> {
        fleet.all.iter().map(|idle| private_dirty_mib(pid(idle))).collect()
    };
    let engines = private(Idle::engine)?;
    let machines = private(Idle::machine)?;
    let both: Vec<f64> = engines.iter().zip(&machines).map(|(engine, machine)| engine + machine).collect();
    Ok(vec![
        Figure::new(
            "memory the host has less of, a container, everything counted",
            less / fleet.number(),
            "MiB",
        )
        .aim(3.0),
        Figure::new("private dirty, the machine's process, median", median(&machines), "MiB"),
        Figure::new("private dirty, the engine's process, median", median(&engines), "MiB"),
        Figure::new("private dirty, both, median", median(&both), "MiB"),
    ])
}

/// All of them at two times.
fn watch(fleet: &Fleet) -> Result<Vec<Figure>> {
    let stats = fleet.all.iter().map(Idle::stats).collect::<Result<Vec<_>>>();
    if let Err(error) = &stats {
        say::line(format_args!("warning: exits are not counted: {error:#}"));
    }
    let stats = stats.unwrap_or_default();
    let read = || stats.iter().map(|stats| stats.read()).collect::<Result<Vec<_>>>();
    let (counts, cpu, began) = (read()?, fleet.cpu_seconds()?, Instant::now());
    pause("watching them idle", WATCH);
    let seconds = began.elapsed().as_secs_f64();
    let (counts_then, cpu) = (read()?, fleet.cpu_seconds()? - cpu);
    let rates = |of: fn(&Counts) -> f64| -> Vec<f64> {
        counts.iter().zip(&counts_then).map(|(a, b)| (of(b) - of(a)) / seconds).collect()
    };
    let mean = |of| rates(of).iter().sum::<f64>() / fleet.number();
    let exits = rates(|counts| counts.exits);
    let percent = cpu / seconds * 100.0;
    let mut figures = vec![
        Figure::new("processor time of all, of one processor", percent, "%"),
        Figure::new("  a container", percent / fleet.number(), "%"),
    ];
    if !stats.is_empty() {
        figures.extend([
            Figure::new("exits a second, a container, mean", mean(|counts| counts.exits), "/s")
                .aim(1.0)
                .note(format!("median {:.2}, most {:.2}", median(&exits), percentile(&exits, 100))),
            Figure::new("emulated instructions a second, a container, mean", mean(|c| c.instructions), "/s")
                .aim(5000.0),
            Figure::new("interrupts a second, a container, mean", mean(|c| c.interrupts), "/s"),
        ]);
    }
    Ok(figures)
}

fn pause(why: &str, time: Duration) {
    let mut progress = say::Progress::begin(format!("bench: {why}"));
    let began = Instant::now();
    while let Some(left) = time.checked_sub(began.elapsed()) {
        progress.update("");
        thread::sleep(left.min(Duration::from_secs(1)));
    }
    progress.done("");
}

fn available_mib() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read the memory's state")?;
    kib(&text, "MemAvailable:").map(|kib| kib / 1024.0).context("the memory's state has no such line")
}
