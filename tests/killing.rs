// SPDX-License-Identifier: Apache-2.0
//! `kill -9` of either process, at any moment, leaves nothing running and nothing in the way.

use crate::support::evil::{Deed, kernel};
use crate::support::{Host, finish};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

/// Within how long everything must be gone.
const GONE: Duration = Duration::from_secs(1);

#[track_caller]
fn expect_nothing_running(host: &Host, since: Instant) {
    while !host.processes().is_empty() {
        assert!(since.elapsed() < GONE, "left after {GONE:?}: {:?}", host.processes());
        thread::sleep(Duration::from_millis(10));
    }
}

fn kill_9(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::KILL).expect("killed");
}

/// Starts a container as often as there are moments, in milliseconds, and kills the engine at each.
fn kill_at(host: &Host, moments: &[u64], args: &[&str]) {
    for milliseconds in moments {
        let mut child = host.command(args).spawn().expect("the binary starts");
        thread::sleep(Duration::from_millis(*milliseconds));
        let killed = Instant::now();
        child.kill().expect("killed");
        child.wait().expect("our child");
        expect_nothing_running(host, killed);
    }
}

#[test]
fn the_engine_killed_at_any_moment_of_a_start_takes_its_machine_along() {
    let host = Host::new();
    let spin = kernel(host.root(), Deed::Spin);
    // The first run loads the demo image; the moments are spread over it and over starts that find it there.
    let moments = [0, 1, 2, 4, 8, 15, 30, 60, 120, 250, 500, 3, 5, 7, 10, 20, 40];
    let kernel = spin.to_str().unwrap();
    kill_at(&host, &moments, &["run", "--rm", "--name", "same", "--no-template", "--kernel", kernel, "demo"]);
    // A load that was killed when its image was there already has left its folder to the next sweep.
    host.isopod(&["system", "prune", "--force"]).expect(0);
    host.assert_clean();
}

/// A restore takes some milliseconds, and what the guest does first takes hundreds.
const OF_A_RESTORE: [u64; 20] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 40, 80, 150, 300, 600, 900];

#[test]
fn the_engine_killed_while_it_restores_a_template_leaves_it_whole() {
    let host = Host::without_templates();
    assert_eq!(host.sh(&[], "echo up").expect(0).text(), "up\n");
    let key = host.isopod(&["template", "ls", "-q"]).expect(0);
    let path = host.data_root().join("templates").join(format!("{}.template", key.text().trim()));
    // A template that is found damaged is made anew, and is another file.
    let state = || fs::metadata(&path).map(|at| (at.ino(), at.len(), at.mtime_nsec())).unwrap();
    let before = state();
    kill_at(
        &host,
        &OF_A_RESTORE,
        &["run", "--rm", "--name", "same", "--entrypoint", "", "demo", "cat", "/etc/passwd"],
    );
    assert_eq!(host.sh(&[], "echo up").expect(0).text(), "up\n");
    assert_eq!(state(), before);
    host.assert_clean();
}

#[test]
fn a_killed_engine_leaves_a_kept_container_as_exited_137() {
    let host = Host::new();
    let spin = kernel(host.root(), Deed::Spin);
    let mut child = host
        .command(&["run", "--name", "kept", "--no-template", "--kernel", spin.to_str().unwrap(), "demo"])
        .spawn()
        .expect("the binary starts");
    host.machine_pid();
    thread::sleep(Duration::from_millis(200));
    child.kill().expect("killed");
    child.wait().expect("our child");
    let listed = host.isopod(&["ps", "-a"]).expect(0);
    assert!(listed.text().contains("kept") && listed.text().contains("137"), "{}", listed.text());
    host.isopod(&["rm", "kept"]).expect(0);
    host.assert_clean();
}

#[test]
fn a_machine_killed_while_it_boots_is_told_and_leaves_nothing() {
    let host = Host::new();
    let spin = kernel(host.root(), Deed::Spin);
    let child = host.command(&["run", "--rm", "--kernel", spin.to_str().unwrap(), "demo"]).spawn().unwrap();
    kill_9(host.machine_pid());
    let killed = Instant::now();
    let run = finish(child, Vec::new()).expect(125);
    expect_nothing_running(&host, killed);
    assert!(run.stderr.contains("signal 9"), "{}", run.stderr);
    host.assert_clean();
}

#[test]
fn a_machine_killed_under_a_running_container_is_137() {
    let host = Host::new();
    let mut child = host
        .command(&["run", "--rm", "--entrypoint", "", "demo", "sh", "-c", "echo up; sleep 1000"])
        .spawn()
        .expect("the binary starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    kill_9(host.machine_pid());
    child.stdout = Some(out.into_inner());
    let run = finish(child, Vec::new()).expect(137);
    assert!(run.stderr.contains("signal 9"), "{}", run.stderr);
    host.assert_clean();
}
