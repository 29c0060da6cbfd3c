// SPDX-License-Identifier: Apache-2.0
//! The process that takes layers apart: what it may do, and that it goes with who started it.

use crate::support::layout::{Layer, Layout, digest};
use crate::support::nasty::{Tar, file};
use crate::support::{Host, wait};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// A layout whose one layer keeps a worker busy for a while.
fn large(host: &Host) -> PathBuf {
    let tar = Tar::of(vec![file("large", "0123456789abcdef".repeat(4 << 20))]);
    let layer = Layer { diff_id: digest(&tar), compression: "", blob: tar };
    Layout::new("large", vec![layer]).write(&host.scratch("layout"))
}

/// The worker of a load, once it is behind closed doors.
fn worker(load: &Child) -> Pid {
    let began = Instant::now();
    loop {
        let found = children(load.id()).into_iter().find(|child| status(*child, "Seccomp") == "2");
        if let Some(child) = found {
            return child;
        }
        assert!(began.elapsed() < SOON, "there was no worker");
    }
}

fn children(process: u32) -> Vec<Pid> {
    let tasks = Path::new("/proc").join(process.to_string()).join("task").read_dir();
    let of = |task: PathBuf| read_to_string(task.join("children")).unwrap_or_default();
    let all = tasks.into_iter().flatten().flatten().map(|task| of(task.path()));
    all.collect::<String>().split_whitespace().filter_map(|n| Pid::from_raw(n.parse().ok()?)).collect()
}

fn status(process: Pid, field: &str) -> String {
    let text = read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn who_takes_a_layer_apart_has_no_capability_and_few_calls_and_files() {
    let host = Host::new();
    let layout = large(&host);
    let mut load = host.command(&["load", "-q", "-i", layout.to_str().unwrap()]).spawn().unwrap();
    let worker = worker(&load);
    kill_process(worker, Signal::STOP).unwrap();
    assert_eq!(status(worker, "Name"), "isopod-unpack");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(worker, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(worker, "NoNewPrivs"), "1");
    let folder = format!("/proc/{}", worker.as_raw_nonzero());
    assert_eq!(read_to_string(format!("{folder}/environ")).unwrap(), "");
    let data = host.data_root();
    let foreign = |file: &String| !file.starts_with(data.to_str().unwrap()) && file != "/dev/null";
    let open = Path::new(&folder).join("fd").read_dir().unwrap().flatten();
    let files: Vec<_> =
        open.filter_map(|fd| Some(fd.path().read_link().ok()?.to_str()?.to_owned())).collect();
    let foreign: Vec<_> = files.iter().filter(|file| foreign(file)).collect();
    assert!(foreign.len() <= 2 && foreign.iter().all(|file| file.starts_with("socket:")), "{files:?}");
    let limits = read_to_string(format!("{folder}/limits")).unwrap();
    let limited =
        |what: &str| limits.lines().any(|line| line.starts_with(what) && !line.contains("unlimited"));
    assert!(limited("Max data size") && limited("Max file size"), "{limits}");
    kill_process(worker, Signal::CONT).unwrap();
    assert_eq!(wait(&mut load, SOON), Some(Some(0)));
    host.assert_clean();
}

#[test]
fn a_worker_that_is_killed_ends_its_load_and_a_load_that_is_killed_its_worker() {
    let host = Host::new();
    let layout = large(&host);
    let start = || host.command(&["load", "-q", "-i", layout.to_str().unwrap()]).spawn().unwrap();
    let mut load = start();
    kill_process(worker(&load), Signal::KILL).unwrap();
    assert_eq!(wait(&mut load, SOON), Some(Some(1)));
    let mut load = start();
    let worker = worker(&load);
    load.kill().unwrap();
    wait(&mut load, SOON);
    let began = Instant::now();
    while !matches!(status(worker, "State").get(..1), None | Some("" | "Z" | "X")) {
        assert!(began.elapsed() < SOON, "it outlived its load: {}", status(worker, "State"));
        sleep(Duration::from_millis(10));
    }
    assert_eq!(host.isopod(&["images", "-q"]).expect(0).text(), "");
    host.isopod(&["load", "-q", "-i", layout.to_str().unwrap()]).expect(0);
    host.assert_clean();
}
