// SPDX-License-Identifier: Apache-2.0
//! The process that takes layers apart: what it may do, and that it goes with who started it.

use crate::jail_calls::FORBIDDEN;
use crate::support::captive::Captive;
use crate::support::layout::{Layer, Layout, digest};
use crate::support::nasty::{Tar, file};
use crate::support::{Host, Run, beneath, finish, wait};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{read_link, read_to_string};
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
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(worker, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(worker, "NoNewPrivs"), "1");
    let folder = format!("/proc/{}", worker.as_raw_nonzero());
    assert_eq!(read_to_string(format!("{folder}/environ")).unwrap(), "");
    assert_eq!(Path::new(&folder).join("root").read_dir().unwrap().count(), 0);
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"] {
        let of = |folder: &str| read_link(format!("{folder}/ns/{namespace}")).unwrap();
        assert_ne!(of(&folder), of("/proc/self"), "{namespace}");
    }
    let ids: Vec<u32> = status(worker, "Uid").split_whitespace().map(|id| id.parse().unwrap()).collect();
    let own = 0x7000_0000 + worker.as_raw_nonzero().get().unsigned_abs();
    assert_eq!(ids, [own; 4]);
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
    for what in ["Max data size", "Max address space", "Max file size", "Max processes"] {
        assert!(limited(what), "{limits}");
    }
    kill_process(worker, Signal::CONT).unwrap();
    assert_eq!(wait(&mut load, SOON), Some(Some(0)));
    host.assert_clean();
}

/// How a load ends whose worker, which waits for the rest of its layer, makes a call.
fn load_with_call(host: &Host, layout: &Path, number: i64, arguments: &[u64]) -> Run {
    let load = host.command(&["load", "-q", "-i", layout.to_str().unwrap()]).spawn().unwrap();
    let worker = worker(&load);
    let engine = Pid::from_child(&load);
    kill_process(engine, Signal::STOP).unwrap();
    let began = Instant::now();
    while !status(worker, "State").starts_with('S') {
        assert!(began.elapsed() < SOON, "it waits for nothing");
    }
    Captive::of(worker.as_raw_nonzero().get().unsigned_abs()).ends_by(number, arguments);
    kill_process(engine, Signal::CONT).unwrap();
    finish(load, Vec::new())
}

#[test]
fn a_worker_that_makes_a_call_that_is_not_on_its_list_ends() {
    const MMAP: i64 = 9;
    const READ_WRITE: u64 = 3;
    const EXEC: u64 = 4;
    // Private, shared, private and growing down, private in huge pages; none has a file.
    let [private, shared, stack, huge] = [0x22, 0x21, 0x122, 0x4_0022];
    let host = Host::new();
    let layout = large(&host);
    let beyond = FORBIDDEN.map(|(call, number)| (call, number, vec![]));
    let maps = [
        ("what can be executed", READ_WRITE | EXEC, private),
        // None of these is counted as data.
        ("shared memory", READ_WRITE, shared),
        ("a stack", READ_WRITE, stack),
        ("huge pages", READ_WRITE, huge),
    ];
    let maps = maps.map(|(what, prot, flags)| (what, MMAP, vec![0, 4096, prot, flags]));
    for (call, number, arguments) in beyond.into_iter().chain(maps) {
        let load = load_with_call(&host, &layout, number, &arguments);
        assert_eq!(load.code, Some(1), "{call}: {}", load.stderr);
        assert!(load.stderr.contains("by signal 31"), "{call}: {}", load.stderr);
    }
    host.assert_clean();
}

#[test]
fn a_worker_whose_jail_is_refused_says_why_however_early_it_ends() {
    let host = Host::new();
    let layout = large(&host);
    // The second message is for who is gone by then.
    let strace = ["-f", "-o", "/dev/null", "-e", "trace=pivot_root,sendmsg"];
    let inject = ["-e", "inject=pivot_root:error=EPERM", "-e", "inject=sendmsg:delay_enter=1000000:when=2"];
    let load = host.command(&["load", "-q", "-i", layout.to_str().unwrap()]);
    let load = beneath("strace", &[&strace[..], &inject].concat(), &load).spawn().unwrap();
    let load = finish(load, Vec::new()).expect(1);
    assert!(load.stderr.contains("ISOPOD_JAIL=no-mount"), "{}", load.stderr);
    host.assert_clean();
}

#[test]
fn a_worker_that_has_reported_and_stays_is_ended() {
    const EXIT_GROUP: u64 = 231;
    let host = Host::new();
    let layout = large(&host);
    let mut load = host.command(&["load", "-q", "-i", layout.to_str().unwrap()]).spawn().unwrap();
    let worker = unistd::Pid::from_raw(worker(&load).as_raw_nonzero().get());
    let wait_for = |flags| waitpid(worker, Some(WaitPidFlag::__WALL | flags)).unwrap();
    ptrace::seize(worker, ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
    ptrace::interrupt(worker).unwrap();
    wait_for(WaitPidFlag::empty());
    // Up to its last call, which it never makes.
    while ptrace::getregs(worker).unwrap().orig_rax != EXIT_GROUP {
        ptrace::syscall(worker, None).unwrap();
        wait_for(WaitPidFlag::empty());
    }
    let began = Instant::now();
    while wait_for(WaitPidFlag::WNOHANG) == WaitStatus::StillAlive {
        assert!(began.elapsed() < SOON, "it stays");
        sleep(Duration::from_millis(10));
    }
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
