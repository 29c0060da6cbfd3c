// SPDX-License-Identifier: Apache-2.0
//! Where a command can be killed: at each system call by which it changes something, as `strace` counts and injects them.
//!
//! A signal that is injected comes before the call is made, so each point is the state after the one before it.

use super::layout::tool;
use super::{Run, beneath, finish};
use std::collections::BTreeMap;
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
}

/// All points of a command, in their order. It is run to its end, which must be a good one.
pub(crate) fn points(plain: &Command, scratch: &Path) -> Vec<Point> {
    let log = scratch.join("strace.log");
    let calls: Vec<_> = CHANGING.iter().map(|call| format!("?{call}")).collect();
    let trace = format!("trace={}", calls.join(","));
    let log_path = log.to_str().expect("text");
    tool(&mut beneath("strace", &["-f", "-qq", "-o", log_path, "-e", &trace, "-e", "signal=none"], plain));
    let mut counts = BTreeMap::new();
    let mut found: Vec<Point> = Vec::new();
    for line in fs::read_to_string(&log).expect("written by strace").lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if !CHANGING.contains(&call) {
            continue;
        }
        let n = counts.entry((thread.to_owned(), call.to_owned())).or_insert(0);
        *n += 1;
        let point = Point { call: call.to_owned(), n: *n };
        // Each thread is counted by itself: what one of them has done the next does there, too.
        if (call != "openat" || arguments.contains("O_CREAT")) && !found.contains(&point) {
            found.push(point);
        }
    }
    found
}

/// So many of the points, as evenly as can be; the last is always one.
pub(crate) fn some_of(points: Vec<Point>, most: u64) -> Vec<Point> {
    let (all, most) = (points.len(), usize::try_from(most).unwrap_or(usize::MAX).min(points.len()).max(1));
    let chosen = |n: &usize| (n + 1) * most / all != n * most / all;
    points.into_iter().enumerate().filter(|(n, _)| chosen(n)).map(|(_, point)| point).collect()
}

/// Runs the command and kills it there; the code is none if it got that far.
#[track_caller]
pub(crate) fn kill_at(plain: &Command, point: &Point) -> Run {
    inject(plain, point, "signal=KILL")
}

/// Runs the command, and the call there is not made but fails, for want of room if that can be why.
#[track_caller]
pub(crate) fn fail_at(plain: &Command, point: &Point) -> Run {
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
    inject(plain, point, if of_room { "error=ENOSPC" } else { "error=EIO" })
}

#[track_caller]
fn inject(plain: &Command, Point { call, n }: &Point, what: &str) -> Run {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{what}:when={n}"));
    let args = ["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    finish(beneath("strace", &args, plain).spawn().expect("strace; `make test` installs it"), Vec::new())
}
