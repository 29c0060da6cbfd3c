// SPDX-License-Identifier: Apache-2.0
//! What the jail costs: the same start with all of its layers and with none, in turn, and the memory of machines that wait.

use super::fleet::{EVERY_LAYER, Fleet, private_mib};
use super::host;
use super::isopod::{Isopod, Run, TRUE};
use super::statistics::{Interval, least, median};
use super::table::{self, Figure, cell};
use crate::say;
use anyhow::{Result, ensure};

/// What it may cost, in ms.
const MOST: f64 = 1.0;
/// How many machines' memory is looked at, with the jail and without.
const MACHINES: u32 = 7;
const ALL: &str = "no-cgroup,no-user,no-mount,no-pid,no-net,no-ipc,no-uts,no-cgroupns,no-rlimits,no-capabilities,\
                   no-untraceable,no-no-new-privileges,no-landlock,no-seccomp";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many starts with it, and as many without
    #[arg(long, default_value_t = 30)]
    rounds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "at least one round is needed");
    let isopod = Isopod::build()?;
    isopod.make_template()?;
    host::load_before()?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut progress = say::Progress::begin("bench: starts in turn");
    for n in 0..arguments.rounds {
        progress.update(&format!("round {} of {}", n + 1, arguments.rounds));
        // Every second round goes backwards, so that neither always comes after the other.
        let first = n % 2 == 0;
        for jailed in [first, !first] {
            if jailed {
                with.push(isopod.run(&[TRUE])?);
            } else {
                without.push(isopod.run_without(ALL, &[TRUE])?);
            }
        }
    }
    progress.done("");
    let memory = [EVERY_LAYER, ALL].map(|without| machines(&isopod, without));
    host::load("after")?;
    let [jailed, free] = memory;
    tell(&with, &without, (&jailed?, &free?));
    Ok(())
}

/// What each of a few machines has for itself, in MiB, while its container waits.
fn machines(isopod: &Isopod, without: &str) -> Result<Vec<f64>> {
    let fleet = Fleet::start(isopod, MACHINES, without)?;
    let private = |machine| private_mib(machine, &["Private_Clean:", "Private_Dirty:"]);
    let all = fleet.all.iter().map(|idle| private(idle.machine())).collect();
    fleet.end(isopod)?;
    all
}

fn tell(with: &[Run], without: &[Run], (jailed, free): (&[f64], &[f64])) {
    let first_run =
        |runs: &[Run]| -> Vec<f64> { runs.iter().filter_map(|run| run.report.at("first KVM_RUN")).collect() };
    let host_side = |runs: &[Run]| -> Vec<f64> { runs.iter().filter_map(Run::host_side).collect() };
    let row = |what: &str, of: &dyn Fn(&[Run]) -> Vec<f64>| {
        let (with, without) = (of(with), of(without));
        let cells = [median(&with), least(&with), median(&without), least(&without)].map(cell);
        (what.to_owned(), cells.to_vec())
    };
    let rows = [row("to the first KVM_RUN", &first_run), row("the host's side of it all", &host_side)];
    table::columns(&["A START FROM A TEMPLATE, ms", "JAIL P50", "MIN", "NONE P50", "MIN"], &rows);
    let figure = |what: &str, of: &dyn Fn(&[Run]) -> Vec<f64>| {
        let (with, without) = (of(with), of(without));
        let minima = format!("of minima {:.2} ms", least(&with) - least(&without));
        difference(what, (&with, &without), "ms", &minima).aim(MOST)
    };
    let medians =
        format!("{:.2} with it, {:.2} without, medians of {MACHINES}", median(jailed), median(free));
    table::figures(&[
        figure("the jail until the first KVM_RUN", &first_run),
        figure("the jail until the end", &host_side),
        difference(
            "private memory of a machine's process, more with the jail",
            (jailed, free),
            "MiB",
            &medians,
        ),
    ]);
}

/// What is judged, and how sure it is.
fn difference(what: &str, (with, without): (&[f64], &[f64]), unit: &'static str, note: &str) -> Figure {
    let Interval { value, low, high } = Interval::of_difference(with, without);
    Figure::new(what, value, unit).note(format!("95 % in {low:.2} to {high:.2}; {note}"))
}
