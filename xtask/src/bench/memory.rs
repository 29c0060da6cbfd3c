// SPDX-License-Identifier: Apache-2.0
//! What the machine's process has for itself: private pages of all mappings but the guest's memory.

use super::isopod::{Isopod, machine_of};
use anyhow::{Context, Result};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

/// In MB, while a container sleeps.
pub(super) fn outside_the_guest(isopod: &Isopod) -> Result<f64> {
    let mut child = isopod
        .command()
        .args(["run", "--rm", "--no-template", "--entrypoint", "", "demo", "sh", "-c", "echo up; sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run isopod")?;
    let measured = measure(&mut child);
    let _ = child.kill();
    let _ = child.wait();
    measured
}

fn measure(child: &mut Child) -> Result<f64> {
    let mut line = String::new();
    let out = child.stdout.take().context("no output")?;
    BufReader::new(out).read_line(&mut line).context("the container did not come up")?;
    let machine = machine_of(child.id())?;
    let smaps = fs::read_to_string(format!("/proc/{machine}/smaps")).context("cannot read its mappings")?;
    Ok(private_kib(&smaps) * 1024.0 / 1e6)
}

/// Private KiB of the mappings that are not the guest's memory: the run of mappings, one right after the other, that
/// the kernel's file is mapped into.
fn private_kib(smaps: &str) -> f64 {
    let mut runs: Vec<Run> = Vec::new();
    for line in smaps.lines() {
        if let Some((start, end)) = range(line) {
            if runs.last().is_none_or(|run| run.end != start) {
                runs.push(Run { end, guest: false, private: 0.0 });
            }
            if let Some(run) = runs.last_mut() {
                run.end = end;
                run.guest |= line.ends_with("vmlinux");
            }
        } else if let (Some(run), true) = (runs.last_mut(), line.starts_with("Private_")) {
            let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok());
            run.private += kib.unwrap_or(0.0);
        }
    }
    runs.iter().filter(|run| !run.guest).map(|run| run.private).sum()
}

/// Mappings without a gap between them.
struct Run {
    end: u64,
    guest: bool,
    private: f64,
}

/// The addresses of the mapping whose first line this is.
fn range(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let number = |hex| u64::from_str_radix(hex, 16).ok();
    Some((number(start)?, number(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_the_guests_counts() {
        let smaps = "7f0000000000-7f0001000000 rw-p 00000000 00:00 0\nPrivate_Dirty: 9000 kB\n\
                     7f0001000000-7f0001800000 rw-p 00000000 00:00 1 /cache/vmlinux\nPrivate_Clean: 9000 kB\n\
                     7f0001800000-7f0002000000 rw-p 00000000 00:00 0\nPrivate_Dirty: 9000 kB\n\
                     7f0002001000-7f0002002000 rw-p 00000000 00:00 0 [heap]\nPrivate_Clean: 4 kB\nPrivate_Dirty: 8 kB\n";
        assert_eq!(private_kib(smaps), 12.0);
    }
}
