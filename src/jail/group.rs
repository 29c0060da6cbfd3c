// SPDX-License-Identifier: Apache-2.0
//! A control group for one jailed process, made by who starts it: `/isopod/<namespace>-<process>-<since>-<n>` below the root
//! of the hierarchy, as Docker's are `/docker/<id>`.
//!
//! It is removed when the process is gone. Should its maker be killed before, whoever comes next removes it: the name says
//! whose it is, by PID namespace and number, and since when, for a number is given to another process one day, and the first
//! one of a container always has the same.

use rustix::io::{Errno, write};
use rustix::process::{Pid, test_kill_process};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use thiserror::Error;

pub(crate) const ROOT: &str = "/sys/fs/cgroup";
const OURS: &str = "isopod";
/// Between the making of a group and its first process are milliseconds.
const ABANDONED: Duration = Duration::from_secs(600);

/// Which control groups this host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    One,
    /// One for all.
    Two,
}

/// What all of a group's processes may have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// Bytes of memory, of page cache among it.
    pub memory: u64,
    pub threads: u64,
    /// How many processors' time.
    pub processors: u64,
}

#[derive(Debug, Error)]
#[error("cannot make a control group (op={op} {})", .path.display())]
pub struct GroupError {
    op: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Microseconds in which the processors' time is counted.
const PERIOD: u64 = 100_000;
/// The controllers that a machine is limited by.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Which one this host has; `None` without the controllers that are needed.
pub fn version() -> Option<Version> {
    let root = Path::new(ROOT);
    if let Ok(there) = fs::read_to_string(root.join("cgroup.controllers")) {
        let there: Vec<&str> = there.split_ascii_whitespace().collect();
        return CONTROLLERS.iter().all(|c| there.contains(c)).then_some(Version::Two);
    }
    CONTROLLERS.iter().all(|c| root.join(c).join("cgroup.procs").exists()).then_some(Version::One)
}

/// A group, in as many hierarchies as it takes.
#[derive(Debug)]
pub(crate) struct Group {
    folders: Vec<PathBuf>,
}

/// A group's folder in one hierarchy.
struct Part {
    hierarchy: &'static str,
    settings: Vec<(&'static str, String)>,
    /// What not every host has.
    swap: (&'static str, String),
    /// Written to by who joins.
    join: &'static str,
}

fn parts(version: Version, limits: &GroupLimits) -> Vec<Part> {
    let [memory, threads] = [limits.memory, limits.threads].map(|n| n.to_string());
    let [quota, period] = [limits.processors * PERIOD, PERIOD].map(|n| n.to_string());
    match version {
        Version::One => {
            // One thread joins, not a process: for that the kernel takes no lock that it would have to wait for, 15 ms
            // and more. The process has no other thread yet.
            let swap = ("memory.memsw.limit_in_bytes", memory.clone());
            let part = |hierarchy, settings| Part { hierarchy, settings, swap: swap.clone(), join: "tasks" };
            vec![
                part("memory", vec![("memory.limit_in_bytes", memory)]),
                part("pids", vec![("pids.max", threads)]),
                part("cpu", vec![("cpu.cfs_period_us", period), ("cpu.cfs_quota_us", quota)]),
            ]
        }
        Version::Two => {
            let processors = ("cpu.max", format!("{quota} {period}"));
            let settings = vec![("memory.max", memory), ("pids.max", threads), processors];
            let swap = ("memory.swap.max", "0".to_owned());
            vec![Part { hierarchy: "", settings, swap, join: "cgroup.procs" }]
        }
    }
}

impl Group {
    /// Makes one; gives the files that a process joins it by.
    pub(crate) fn make(version: Version, limits: &GroupLimits) -> Result<(Self, Vec<File>), GroupError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let since = since(Path::new("/proc/self")).unwrap_or(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{since}-{n}", own_prefix(), process::id());
        let mut group = Self { folders: Vec::new() };
        let mut joins = Vec::new();
        if version == Version::Two {
            hand_down()?;
        }
        for Part { hierarchy, settings, swap: (swap, most), join } in parts(version, limits) {
            let ours = Path::new(ROOT).join(hierarchy).join(OURS);
            DirBuilder::new().mode(0o755).recursive(true).create(&ours).map_err(failed("mkdir", &ours))?;
            let folder = ours.join(&name);
            // One that is there already is somebody else's.
            DirBuilder::new().mode(0o755).create(&folder).map_err(failed("mkdir", &folder))?;
            group.folders.push(folder.clone());
            for (setting, value) in settings {
                put(&folder.join(setting), &value)?;
            }
            let swap = folder.join(swap);
            if swap.exists() {
                put(&swap, &most)?;
            }
            let join = folder.join(join);
            joins.push(OpenOptions::new().write(true).open(&join).map_err(failed("open", &join))?);
        }
        Ok((group, joins))
    }

    /// Whether a process of its was killed for the group's limit of memory.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        let events = ["memory.oom_control", "memory.events"]
            .map(|file| self.folders.iter().find_map(|folder| fs::read_to_string(folder.join(file)).ok()));
        let killed =
            |text: &String| text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|n| n != "0"));
        events.iter().flatten().any(killed)
    }
}

/// When a process began, in ticks since the host did (proc_pid_stat(5)).
fn since(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // Its name, in parentheses, may have any character in it; this is the twentieth field behind it.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Of the names of those who share this process's numbers.
fn own_prefix() -> String {
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect::<String>();
    format!("{digits}-")
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // One that is not empty yet is for whoever comes next.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// In version 2 a group hands its controllers down to those below it by name.
fn hand_down() -> Result<(), GroupError> {
    let ours = Path::new(ROOT).join(OURS);
    DirBuilder::new().mode(0o755).recursive(true).create(&ours).map_err(failed("mkdir", &ours))?;
    for folder in [Path::new(ROOT), &ours] {
        put(&folder.join("cgroup.subtree_control"), "+memory +pids +cpu")?;
    }
    Ok(())
}

fn put(path: &Path, value: &str) -> Result<(), GroupError> {
    let written = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| write(&file, value.as_bytes()).map_err(Into::into));
    written.map(drop).map_err(failed("write", path))
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GroupError {
    move |source| GroupError { op, path: path.to_owned(), source }
}

/// The folders that groups are made in.
pub(crate) fn homes() -> Vec<PathBuf> {
    let hierarchies: &[&str] = match version() {
        Some(Version::One) => &CONTROLLERS,
        Some(Version::Two) => &[""],
        None => &[],
    };
    hierarchies.iter().map(|hierarchy| Path::new(ROOT).join(hierarchy).join(OURS)).collect()
}

/// Removes the groups whose makers are gone. Of makers in other PID namespaces that cannot be told; but a group that has a
/// process cannot be removed, and one that has none for so long will get none.
pub fn sweep() {
    let prefix = own_prefix();
    for ours in homes() {
        for entry in fs::read_dir(ours).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let own = || maker_is_gone(name.to_str()?.strip_prefix(&prefix)?);
            let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
            if own() == Some(true) || age().is_some_and(|age| age > ABANDONED) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// By what a name has behind the namespace; `None` if it is none of ours.
fn maker_is_gone(name: &str) -> Option<bool> {
    let mut parts = name.split('-');
    let maker: i32 = parts.next()?.parse().ok()?;
    let made: u64 = parts.next()?.parse().ok()?;
    let is_another = || since(&Path::new("/proc").join(maker.to_string())).is_some_and(|since| since != made);
    Some(test_kill_process(Pid::from_raw(maker)?) == Err(Errno::SRCH) || is_another())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_group_whose_makers_number_is_another_processs_by_now_is_left_over() {
        let (own, since) = (process::id(), since(Path::new("/proc/self")).unwrap());
        assert_eq!(maker_is_gone(&format!("{own}-{since}-0")), Some(false));
        assert_eq!(maker_is_gone(&format!("{own}-{}-0", since - 1)), Some(true));
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        assert_eq!(maker_is_gone(&format!("{}-{since}-0", ended.id())), Some(true));
        assert_eq!(maker_is_gone("docker"), None);
    }
}
