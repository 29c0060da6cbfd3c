// SPDX-License-Identifier: Apache-2.0
//! What the machine's process has for itself: private pages of all mappings but the guest's memory.

use super::boot::command;
use anyhow::{Context, Result};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

/// More than any mapping of our own, less than any guest's memory.
const GUEST_AT_LEAST: u64 = 32 << 20;

/// In MB, while a container sleeps.
pub(super) fn outside_the_guest(isopod: &Path, folder: &Path) -> Result<f64> {
    let mut child = command(isopod, folder)
        .args(["run", "--rm", "--entrypoint", "", "demo", "sh", "-c", "echo up; sleep 1000"])
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
    let pid = child.id();
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).context("no children to be seen")?;
    let machine = children.split_whitespace().next().context("there is no machine")?;
    let smaps = fs::read_to_string(format!("/proc/{machine}/smaps")).context("cannot read its mappings")?;
    Ok(private_kib(&smaps) * 1024.0 / 1e6)
}

/// Private KiB of the mappings that are neither the guest's memory nor the kernel's file mapped into it.
fn private_kib(smaps: &str) -> f64 {
    let mut guest = false;
    let mut sum = 0.0;
    for line in smaps.lines() {
        if let Some(len) = mapping_len(line) {
            guest = len >= GUEST_AT_LEAST || line.ends_with("vmlinux");
        } else if !guest && line.starts_with("Private_") {
            let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok());
            sum += kib.unwrap_or(0.0);
        }
    }
    sum
}

/// The length of the mapping whose first line this is.
fn mapping_len(line: &str) -> Option<u64> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let number = |hex| u64::from_str_radix(hex, 16).ok();
    number(end)?.checked_sub(number(start)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_the_guests_counts() {
        let smaps = "7f0000000000-7f0010000000 rw-p 00000000 00:00 0\nPrivate_Dirty: 9000 kB\n\
                     7f1000000000-7f1000800000 rw-p 00000000 00:00 1 /cache/vmlinux\nPrivate_Clean: 9000 kB\n\
                     55a000000000-55a000100000 rw-p 00000000 00:00 0 [heap]\nPrivate_Clean: 4 kB\nPrivate_Dirty: 8 kB\n";
        assert_eq!(private_kib(smaps), 12.0);
    }
}
