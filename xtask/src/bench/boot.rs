// SPDX-License-Identifier: Apache-2.0
//! What a cold start costs. Times depend on the host and its load; counts do not, once ticks are taken out.

use super::isopod::{Counters, Isopod, Report, TRUE};
use super::statistics::median;
use super::table::{self, Figure};
use super::{memory, syscalls};
use crate::say;
use anyhow::{Context, Result, ensure};
use std::fs;

/// How a machine is booted even where it could start from a template.
pub(super) const COLD: &[&str] = &["--no-template"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many starts to take the median of
    #[arg(long, default_value_t = 5)]
    runs: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.runs > 0, "at least one run is needed");
    let isopod = Isopod::build()?;
    // The first run loads the demo image and writes the boot share; it is not counted.
    isopod.run(&[COLD, TRUE])?;
    let mut progress = say::Progress::begin("bench: cold starts");
    let mut reports = Vec::new();
    for n in 1..=arguments.runs {
        progress.update(&format!("{n} of {}", arguments.runs));
        reports.push(isopod.run(&[COLD, TRUE])?.report);
    }
    progress.done("");
    table::figures(&figures(&isopod, &reports)?);
    Ok(())
}

fn figures(isopod: &Isopod, reports: &[Report]) -> Result<Vec<Figure>> {
    let between = |from: &str, to: &str| {
        median(&reports.iter().filter_map(|r| r.between(from, to)).collect::<Vec<_>>())
    };
    let hello = |count: fn(&Counters) -> f64| {
        median(&reports.iter().filter_map(|r| r.at_hello.as_ref().map(count)).collect::<Vec<_>>())
    };
    let calls = syscalls::to_first_run(isopod)?;
    let binary = fs::metadata(isopod.binary()).context("cannot see the binary")?.len() as f64 / 1e6;
    let private = memory::outside_the_guest(isopod)?;
    let figure = |what: &str, value, aim, unit| Figure::new(what, value, unit).aim(aim);
    Ok(vec![
        figure("machine asked for to first KVM_RUN", between("record written", "first KVM_RUN"), 1.5, "ms"),
        figure("  of it in the machine's process", between("machine's process", "first KVM_RUN"), 1.5, "ms"),
        figure("isopod executed to first KVM_RUN", between("process start", "first KVM_RUN"), 5.0, "ms"),
        figure(
            "guest-kernel instructions to hello, ticks taken out",
            hello(Counters::without_ticks) / 1e6,
            6.0,
            "M",
        ),
        figure(
            "guest-kernel instructions to hello, as counted",
            hello(|c| c.emulated_instructions) / 1e6,
            6.0,
            "M",
        ),
        figure("private memory of the machine's process outside guest RAM", private, 1.5, "MB"),
        figure("binary", binary, 6.0, "MB"),
        figure("system calls to the first KVM_RUN, machine's process", calls.machine, 120.0, ""),
        figure("system calls to the first KVM_RUN, both processes", calls.both, 250.0, ""),
    ])
}
