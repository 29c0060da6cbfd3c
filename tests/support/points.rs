// SPDX-License-Identifier: Apache-2.0
//! Where a command can be killed: at each system call by which it changes something, as `strace` counts and injects them.
//!
//! A signal that is injected comes before the call is made, so each point is the state after the one before it.

use super::{Run, beneath, finish};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// System calls that change files, or tell somebody something.
const CHANGING: [&str; 28] = [
    "openat",
    "creat",
    "write",
    "writev",
    "pwrite64",
    "copy_file_range",
    "sendfile",
    "splice",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlinkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "flock",
    "fchmod",
    "connect",
    "sendto",
    "sendmsg",
];

/// The `n`th time that a thread makes this call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) call: String,
    pub(crate) n: usize,
    /// A thread of a process that the command has started, and not of its own.
    worker: bool,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.worker { "a worker's " } else { "" };
        write!(f, "{whose}{} {}", self.call, self.n)
    }
}

/// All points of a command, in their order; those of its workers at the end. It is run to its end, which must be a good one.
#[track_caller]
pub(crate) fn points(plain: &Command, scratch: &Path, run: impl Fn(Command) -> Run) -> Vec<Point> {
    let log = scratch.join("strace.log");
    let calls: Vec<_> = CHANGING.iter().map(|call| format!("?{call}")).collect();
    let trace = format!("trace=execve,{}", calls.join(","));
    let args = ["-o", log.to_str().expect("text"), "-e", "signal=none", "-e", &trace];
    run(traced(plain, true, &args)).expect(0);
    let log = fs::read_to_string(&log).expect("written by strace");
    let mut found = Vec::new();
    for worker in [false, true] {
        found_in(&log, worker, &mut found);
    }
    found
}

/// Each thread is counted by itself: what one of them has done the next does there, too.
fn found_in(log: &str, worker: bool, found: &mut Vec<Point>) {
    let mut counts = BTreeMap::new();
    let mut first = None;
    let mut workers = BTreeSet::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if call == "execve" && *first.get_or_insert(thread) != thread {
            workers.insert(thread);
        }
        if !CHANGING.contains(&call) || workers.contains(thread) != worker {
            continue;
        }
        let n = counts.entry((thread, call)).or_insert(0);
        *n += 1;
        let point = Point { call: call.to_owned(), n: *n, worker };
        if (call != "openat" || arguments.contains("O_CREAT")) && !found.contains(&point) {
            found.push(point);
        }
    }
}

/// The command under strace, with the processes it starts or without.
fn traced(plain: &Command, workers: bool, args: &[&str]) -> Command {
    let with = if workers { &["-f", "-qq"][..] } else { &["-f", "-b", "execve", "-qq"] };
    beneath("strace", &[with, args].concat(), plain)
}

/// So many of the points, as evenly as can be; the last is always one.
pub(crate) fn some_of(points: Vec<Point>, most: u64) -> Vec<Point> {
    let (all, most) = (points.len(), usize::try_from(most).unwrap_or(usize::MAX).min(points.len()).max(1));
    let chosen = |n: &usize| (n + 1) * most / all != n * most / all;
    points.into_iter().enumerate().filter(|(n, _)| chosen(n)).map(|(_, point)| point).collect()
}

/// Kills the command there, or the process it has started; the code is none if the command itself was killed.
#[track_caller]
pub(crate) fn kill_at(plain: &Command, point: &Point, run: impl Fn(Command) -> Run) -> Run {
    run(injected(plain, point, "signal=KILL"))
}

/// The call there is not made but fails, for want of room if that can be why.
#[track_caller]
pub(crate) fn fail_at(plain: &Command, point: &Point, run: impl Fn(Command) -> Run) -> Run {
    let of_room = matches!(
        point.call.as_str(),
        "openat"
            | "write"
            | "pwrite64"
            | "copy_file_range"
            | "mkdir"
            | "mkdirat"
            | "link"
            | "linkat"
            | "fallocate"
    );
    run(injected(plain, point, if of_room { "error=ENOSPC" } else { "error=EIO" }))
}

fn injected(plain: &Command, Point { call, n, worker }: &Point, what: &str) -> Command {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{what}:when={n}"));
    traced(plain, *worker, &["-o", "/dev/null", "-e", &trace, "-e", &inject])
}

/// Runs a command as it is.
#[track_caller]
pub(crate) fn here(mut command: Command) -> Run {
    finish(command.spawn().expect("strace; `make test` installs it"), Vec::new())
}
