// SPDX-License-Identifier: Apache-2.0
//! What containers cost that wait for something: as many as asked for, all from one template, each a `cat` on a pipe
//! that nothing comes through.

use super::fleet::{EVERY_LAYER, Fleet, Idle, kib, private_mib};
use super::host;
use super::isopod::Isopod;
use super::statistics::{median, percentile};
use super::stats::Counts;
use super::table::{self, Figure};
use crate::say;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const SETTLE: Duration = Duration::from_secs(30);
const WATCH: Duration = Duration::from_secs(120);
/// What a machine had is given back a little after its end.
const AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many containers
    #[arg(long, default_value_t = 50)]
    count: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.count > 0, "at least one container is needed");
    let isopod = Isopod::build()?;
    isopod.make_template()?;
    host::load_before()?;
    pause("letting the host settle", AFTER);
    let before = available_mib()?;
    let fleet = Fleet::start(&isopod, arguments.count, EVERY_LAYER)?;
    pause("letting them settle", SETTLE);
    let mut memory =
        Memory { before, settled: available_mib()?, number: fleet.number(), ..Memory::default() };
    (memory.engine, memory.machine) = (private(&fleet, Idle::engine)?, private(&fleet, Idle::machine)?);
    let activity = watch(&fleet)?;
    memory.last = available_mib()?;
    fleet.end(&isopod)?;
    pause("letting the host settle", AFTER);
    memory.ended = available_mib()?;
    host::load("after")?;
    say::line(format_args!("{} idle containers, one template", arguments.count));
    table::figures(&[memory.figures(), activity].concat());
    Ok(())
}

/// In MiB: what the host had at four times, and what a container's processes have for themselves.
#[derive(Debug, Default)]
struct Memory {
    number: f64,
    before: f64,
    settled: f64,
    last: f64,
    ended: f64,
    engine: f64,
    machine: f64,
}

impl Memory {
    /// What is given back at the end is what was used, and takes seconds to tell: whatever else the host does has less
    /// time to disturb it than while they are started.
    fn figures(&self) -> Vec<Figure> {
        let (private, back) = (self.engine + self.machine, (self.ended - self.last) / self.number);
        let disturbed = back < private;
        let note = if disturbed {
            "less than their own: the host is not still, this is not their memory"
        } else {
            ""
        };
        vec![
            Figure::new("memory given back at the end, a container, all counted", back, "MiB")
                .aim(3.0)
                .note(note),
            Figure::new(
                "  the host has less of once they are settled",
                (self.before - self.settled) / self.number,
                "MiB",
            ),
            Figure::new("  private dirty, both processes: no less than this", private, "MiB").aim(3.0),
            Figure::new("    of it the machine's, median", self.machine, "MiB"),
            Figure::new("    of it the engine's, median", self.engine, "MiB"),
        ]
    }
}

fn private(fleet: &Fleet, pid: fn(&Idle) -> u32) -> Result<f64> {
    let all: Vec<f64> =
        fleet.all.iter().map(|idle| private_mib(pid(idle), &["Private_Dirty:"])).collect::<Result<_>>()?;
    Ok(median(&all))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_comes_back_and_no_less_than_what_is_private() {
        let memory = |ended| {
            let memory = Memory {
                number: 10.0,
                before: 100.0,
                settled: 60.0,
                last: 60.0,
                ended,
                engine: 1.0,
                machine: 1.0,
            };
            format!("{:?}", memory.figures())
        };
        assert!(memory(90.0).contains("value: 3.0") && !memory(90.0).contains("not still"));
        assert!(memory(70.0).contains("not still"));
    }
}
