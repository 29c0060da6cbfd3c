// SPDX-License-Identifier: Apache-2.0
//! Containers in the background, ended by the pids they were given, whatever happens.

use super::isopod::{Isopod, machine_of};
use super::stats::Stats;
use crate::say;
use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::thread;

/// Seconds that a machine has to go once its engine is gone.
const GONE_WITHIN: i64 = 10;

const HELLO: &[u8] = b"up\n";

/// What a fleet goes without that goes without no layer of the jail.
pub(super) const EVERY_LAYER: &str = "";

/// A container whose process has answered once and now waits for more.
#[derive(Debug)]
pub(super) struct Idle {
    engine: Child,
    machine: u32,
    /// The machine's process, whoever has its number later.
    pidfd: OwnedFd,
    /// Held open: at its end the container would end.
    _stdin: ChildStdin,
}

impl Idle {
    pub(super) fn engine(&self) -> u32 {
        self.engine.id()
    }

    pub(super) fn machine(&self) -> u32 {
        self.machine
    }

    pub(super) fn stats(&self) -> Result<Stats> {
        Stats::of(self.machine, &self.pidfd)
    }

    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: GONE_WITHIN, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }
}

/// Ended, all of them, when dropped.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) all: Vec<Idle>,
}

impl Fleet {
    /// As many at once as there are processors, so that none waits for long. `without` are layers of the jail.
    pub(super) fn start(isopod: &Isopod, count: u32, without: &str) -> Result<Self> {
        let at_once = thread::available_parallelism().map_or(1, |n| n.get());
        let mut progress = say::Progress::begin("bench: starting containers");
        let mut fleet = Self { all: Vec::new() };
        let wanted = usize::try_from(count).context("too many containers")?;
        while fleet.all.len() < wanted {
            progress.update(&format!("{} of {count}", fleet.all.len()));
            let mut coming = Vec::new();
            for _ in 0..at_once.min(wanted - fleet.all.len()) {
                coming.push(Coming::spawn(isopod, without)?);
            }
            for one in coming {
                fleet.all.push(one.up()?);
            }
        }
        progress.done("");
        Ok(fleet)
    }

    pub(super) fn number(&self) -> f64 {
        u32::try_from(self.all.len()).map_or(f64::NAN, f64::from)
    }

    /// Of a processor, since they were started.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let pids = self.all.iter().flat_map(|idle| [idle.engine(), idle.machine()]);
        pids.map(cpu_seconds).sum()
    }

    /// Ends them and makes sure that nothing is left.
    pub(super) fn end(mut self, isopod: &Isopod) -> Result<()> {
        self.kill();
        let left = self.all.iter().filter(|idle| !idle.is_gone()).count();
        ensure!(left == 0, "{left} machines are left after their engines were killed");
        let recorded = isopod.containers()?;
        ensure!(recorded.is_empty(), "containers are left: {recorded}");
        Ok(())
    }

    fn kill(&mut self) {
        for idle in &mut self.all {
            let _ = idle.engine.kill();
        }
        for idle in &mut self.all {
            let _ = idle.engine.wait();
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One that has not answered yet; killed if dropped before.
struct Coming {
    child: Option<Child>,
}

impl Coming {
    fn spawn(isopod: &Isopod, without: &str) -> Result<Self> {
        let mut command = isopod.command_without(without);
        command.args(["run", "--rm", "-i", "--entrypoint", "", "demo", "cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self { child: Some(command.spawn().context("cannot run isopod")?) })
    }

    fn up(mut self) -> Result<Idle> {
        let child = self.child.as_mut().context("no child")?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let mut answer = [0; HELLO.len()];
        stdin.write_all(HELLO).context("the container does not listen")?;
        let out = child.stdout.as_mut().context("no stdout")?;
        out.read_exact(&mut answer).context("the container did not come up")?;
        ensure!(answer == HELLO, "the container does not answer what it was told");
        let machine = machine_of(child.id())?;
        let pid = i32::try_from(machine).ok().and_then(Pid::from_raw).context("no such pid")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("cannot open a machine's process")?;
        let engine = self.child.take().context("no child")?;
        Ok(Idle { engine, machine, pidfd, _stdin: stdin })
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Of all threads, to the nanosecond: the first figure of each one's schedstat.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("cannot see a process's threads")? {
        let path = thread.context("cannot see a process's threads")?.path().join("schedstat");
        let text = fs::read_to_string(path).context("cannot read a thread's time")?;
        let nanoseconds = text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok());
        sum += nanoseconds.context("a time is a number")? / 1e9;
    }
    Ok(sum)
}

/// Of all mappings of a process, the sum of these figures.
pub(super) fn private_mib(pid: u32, names: &[&str]) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("cannot read the mappings")?;
    let figure = |name: &&str| kib(&text, name).context("the mappings have no sum");
    Ok(names.iter().map(figure).sum::<Result<f64>>()? / 1024.0)
}

/// The figure of a line `name:  n kB`.
pub(super) fn kib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_name() {
        let text = "MemFree:  1 kB\nMemAvailable:    2048 kB\nPrivate_Dirty: x kB\n";
        assert_eq!(kib(text, "MemAvailable:"), Some(2048.0));
        assert_eq!((kib(text, "Private_Dirty:"), kib(text, "Swap:")), (None, None));
    }
}
