// SPDX-License-Identifier: Apache-2.0
//! What a cold start costs. Times depend on the host and its load; counts do not, once ticks are taken out.

use super::{median, memory, product, syscalls};
use crate::say;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a timer tick of the guest costs, in emulated instructions: the mean of a start traced instruction by instruction.
const PER_TICK: f64 = 2580.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many starts to take the median of
    #[arg(long, default_value_t = 5)]
    runs: u32,
}

/// What `isopod run --timings=json` says.
#[derive(Debug, Deserialize)]
struct Report {
    timings: Vec<Row>,
    at_hello: Option<Counters>,
}

#[derive(Debug, Deserialize)]
struct Row {
    what: String,
    at_ms: f64,
}

#[derive(Debug, Deserialize)]
struct Counters {
    emulated_instructions: f64,
    interrupts: f64,
}

struct Figure {
    what: &'static str,
    value: f64,
    aim: f64,
    unit: &'static str,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.runs > 0, "at least one run is needed");
    let isopod = product()?;
    let folder = tempfile::tempdir().context("cannot make a folder for the runs")?;
    // The first run loads the demo image and writes the boot share; it is not counted.
    one(&isopod, folder.path())?;
    let mut progress = say::Progress::begin("bench: cold starts");
    let mut reports = Vec::new();
    for n in 1..=arguments.runs {
        progress.update(&format!("{n} of {}", arguments.runs));
        reports.push(one(&isopod, folder.path())?);
    }
    progress.done("");
    let figures = figures(&isopod, folder.path(), &reports)?;
    say::line(format_args!("{:<62} {:>12} {:>10}", "WHAT", "HERE", "AIM"));
    for Figure { what, value, aim, unit } in figures {
        let verdict = if value <= aim { "" } else { "  over" };
        say::line(format_args!("{what:<62} {value:>9.2} {unit:<2} {aim:>7.2} {unit:<2}{verdict}"));
    }
    Ok(())
}

fn figures(isopod: &Path, folder: &Path, reports: &[Report]) -> Result<Vec<Figure>> {
    let between = |from: &str, to: &str| {
        let at = |report: &Report, what: &str| {
            report.timings.iter().find(|row| row.what == what).map(|row| row.at_ms)
        };
        median(reports.iter().filter_map(|r| Some(at(r, to)? - at(r, from)?)).collect())
    };
    let hello = |count: fn(&Counters) -> f64| {
        median(reports.iter().filter_map(|r| r.at_hello.as_ref().map(count)).collect())
    };
    let size = |bytes: u64| bytes as f64 / 1e6;
    let calls = syscalls::to_first_run(isopod, folder)?;
    let binary = fs::metadata(isopod).context("cannot see the binary")?.len();
    let private = memory::outside_the_guest(isopod, folder)?;
    let figure = |what, value, aim, unit| Figure { what, value, aim, unit };
    Ok(vec![
        figure("machine asked for to first KVM_RUN", between("record written", "first KVM_RUN"), 1.5, "ms"),
        figure("  of it in the machine's process", between("machine's process", "first KVM_RUN"), 1.5, "ms"),
        figure("isopod executed to first KVM_RUN", between("process start", "first KVM_RUN"), 5.0, "ms"),
        figure(
            "guest-kernel instructions to hello, ticks taken out",
            hello(|c| (c.emulated_instructions - PER_TICK * c.interrupts) / 1e6),
            6.0,
            "M",
        ),
        figure(
            "guest-kernel instructions to hello, as counted",
            hello(|c| c.emulated_instructions / 1e6),
            6.0,
            "M",
        ),
        figure("private memory of the machine's process outside guest RAM", private, 1.5, "MB"),
        figure("binary", size(binary), 6.0, "MB"),
        figure("system calls to the first KVM_RUN, machine's process", calls.machine, 120.0, ""),
        figure("system calls to the first KVM_RUN, both processes", calls.both, 250.0, ""),
    ])
}

fn one(isopod: &Path, folder: &Path) -> Result<Report> {
    let output = command(isopod, folder)
        .args(["run", "--rm", "--no-template", "--timings=json", "--entrypoint", "", "demo", "true"])
        .output()
        .context("cannot run isopod")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "isopod run failed: {text}");
    let json = text.lines().rfind(|line| line.starts_with('{')).context("there are no timings")?;
    serde_json::from_str(json).context("the timings are not as expected")
}

/// `isopod`, with a data root of its own.
pub(super) fn command(isopod: &Path, folder: &Path) -> Command {
    let mut command = Command::new(isopod);
    with_roots(&mut command, folder);
    command
}

pub(super) fn with_roots(command: &mut Command, folder: &Path) {
    command
        .env("ISOPOD_DATA_ROOT", folder.join("data"))
        .env("ISOPOD_RUN_ROOT", folder.join("run"))
        .stdin(Stdio::null());
}
