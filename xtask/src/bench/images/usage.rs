// SPDX-License-Identifier: Apache-2.0
//! What a command and all its children took: `/proc` adds up those that were waited for.

use anyhow::{Context, Result, ensure};
use rustix::param::clock_ticks_per_second;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// Seconds.
    pub(super) wall: f64,
    pub(super) cpu: f64,
    /// MiB to disk, or on their way there.
    pub(super) written: f64,
}

/// Of a process: processor time and bytes, its children's included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    cpu: f64,
    written: f64,
}

impl Account {
    /// `process` is a number, or `self`.
    pub(super) fn of(process: &str) -> Result<Self> {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/{process}/{name}"))
                .with_context(|| format!("cannot read {name}"))
        };
        let stat = read("stat")?;
        // After the name, which may have anything in it: utime, stime, cutime and cstime are the 12th to 15th.
        let (_, fields) = stat.rsplit_once(')').context("stat has a name")?;
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(4).filter_map(|n| n.parse::<u64>().ok()).sum();
        let io = read("io")?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let written: u64 = written.context("io has write_bytes")?.trim().parse().context("a number")?;
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let account = Self {
            cpu: ticks as f64 / clock_ticks_per_second() as f64,
            written: written as f64 / f64::from(1 << 20),
        };
        Ok(account)
    }

    pub(super) fn since(self, before: Self) -> Usage {
        Usage { cpu: self.cpu - before.cpu, written: self.written - before.written, ..Usage::default() }
    }
}

/// Runs commands one after the other, each to succeed, and adds up what they took.
pub(super) fn of(commands: &mut [Command]) -> Result<Usage> {
    let before = Account::of("self")?;
    let began = Instant::now();
    for command in commands {
        run(command)?;
    }
    let wall = began.elapsed().as_secs_f64();
    Ok(Usage { wall, ..Account::of("self")?.since(before) })
}

pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// strace's options that count what goes to the disk at once.
pub(super) const COUNT: [&str; 6] =
    ["-f", "-c", "-U", "calls,name", "-e", "trace=fsync,fdatasync,syncfs,sync,sync_file_range"];
/// The others are not stopped at; only for what strace itself starts.
pub(super) const BY_FILTER: &str = "--seccomp-bpf";

/// The sum of what strace counted.
pub(super) fn syncs(log: &Path) -> Result<f64> {
    let text = fs::read_to_string(log).context("cannot read strace's count")?;
    let calls = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (calls, name) = (words.next()?.parse::<u32>().ok()?, words.next()?);
        name.contains("sync").then_some(f64::from(calls))
    });
    Ok(calls.sum())
}
