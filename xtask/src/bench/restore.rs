// SPDX-License-Identifier: Apache-2.0
//! Whether a machine with more memory takes longer to restore on the host's side: it must not, since none of what the
//! guest doesn't touch is to be read, mapped page by page, or registered.

use super::host;
use super::isopod::Isopod;
use super::statistics::{Interval, least, median};
use super::table::{self, Figure, cell};
use crate::say;
use anyhow::{Context, Result, ensure};

const SIZES: [u32; 7] = [128, 256, 512, 1024, 2048, 4096, 8192];

/// A command that is not there: only the time until the guest runs is of interest, and this guest is done sooner.
const NOTHING: &[&str] = &["--entrypoint", "", "demo", "/nonexistent"];
const NOT_FOUND: i32 = 127;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many starts of each size
    #[arg(long, default_value_t = 20)]
    rounds: u32,
}

#[derive(Debug)]
struct Size {
    mib: u32,
    /// Milliseconds from the record written to the first KVM_RUN, and of it those in the machine's process.
    restored: Vec<f64>,
    inside: Vec<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "at least one round is needed");
    let isopod = Isopod::build()?;
    let mut sizes = SIZES.map(|mib| Size { mib, restored: Vec::new(), inside: Vec::new() });
    for Size { mib, .. } in &sizes {
        let progress = say::Progress::begin(format!("bench: making a template of {mib} MiB"));
        start(&isopod, *mib)?;
        progress.done("");
    }
    host::load_before()?;
    let mut progress = say::Progress::begin("bench: restores in turn");
    for n in 1..=arguments.rounds {
        for size in &mut sizes {
            progress.update(&format!("round {n} of {}, {} MiB", arguments.rounds, size.mib));
            let (restored, inside) = start(&isopod, size.mib)?;
            size.restored.push(restored);
            size.inside.push(inside);
        }
        // Nobody always comes after the same one.
        sizes.reverse();
    }
    progress.done("");
    host::load("after")?;
    sizes.sort_by_key(|size| size.mib);
    tell(&sizes);
    Ok(())
}

fn start(isopod: &Isopod, mib: u32) -> Result<(f64, f64)> {
    let memory = format!("{mib}m");
    let report = isopod.run_to(NOT_FOUND, &[&["-m", &memory], NOTHING])?.report;
    let until = |from| report.between(from, "first KVM_RUN").context("the guest did not run");
    Ok((until("record written")?, until("machine's process")?))
}

fn tell(sizes: &[Size]) {
    let row = |size: &Size| {
        let cells =
            [least(&size.restored), median(&size.restored), least(&size.inside), median(&size.inside)];
        (format!("{} MiB", size.mib), cells.map(cell).to_vec())
    };
    let head = ["RECORD WRITTEN TO FIRST KVM_RUN, ms", "MIN", "P50", "OF IT: MIN", "P50"];
    table::columns(&head, &sizes.iter().map(row).collect::<Vec<_>>());
    say::line("of it: in the machine's process");
    if let (Some(first), Some(last)) = (sizes.first(), sizes.last()) {
        table::figures(&slopes(first, last));
    }
}

fn slopes(first: &Size, last: &Size) -> Vec<Figure> {
    let between = format!("from {} MiB to {} MiB", first.mib, last.mib);
    let slope = |what: &str, by: fn(&Size) -> f64| {
        Figure::new(format!("{what} {between}"), percent(by(last) / by(first)), "%").aim(5.0)
    };
    let Interval { low, high, .. } = Interval::of_ratio(&last.restored, &first.restored);
    vec![
        slope("slope of medians", |size| median(&size.restored)).note(format!(
            "95 % in {:.1} to {:.1}",
            percent(low),
            percent(high)
        )),
        slope("slope of minima", |size| least(&size.restored)),
        slope("slope of medians in the machine's process", |size| median(&size.inside)),
    ]
}

fn percent(ratio: f64) -> f64 {
    (ratio - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn no_growth_is_no_slope() {
        assert_eq!(percent(1.0), 0.0);
        assert_eq!(percent(1.5), 50.0);
    }
}
