// SPDX-License-Identifier: Apache-2.0
//! Signals to `isopod run` reach the process.

use crate::support::{Host, finish};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};
use std::thread::sleep;
use std::time::Duration;

/// Starts a container whose script says `ready`; gives its output from there on.
fn start(host: &Host, script: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = host
        .command(&["run", "--rm", "--entrypoint", "", "demo", "sh", "-c", script])
        .spawn()
        .expect("the binary starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    (child, out)
}

/// Starts a container, sends it `signal`, and gives what it says and how it ends.
fn signalled(signal: Signal) -> (String, Option<i32>) {
    let host = Host::new();
    let script = "trap 'echo got TERM; exit 3' TERM; trap 'echo got INT; exit 4' INT; \
                  echo ready; while :; do sleep 1; done";
    let (mut child, mut out) = start(&host, script);
    let mut line = String::new();
    kill_process(Pid::from_child(&child), signal).expect("sent");
    out.read_line(&mut line).expect("a line");
    child.stdout = Some(out.into_inner());
    let run = finish(child, Vec::new());
    host.assert_clean();
    (line, run.code)
}

#[test]
fn sigterm_reaches_the_process() {
    assert_eq!(signalled(Signal::TERM), ("got TERM\n".to_owned(), Some(3)));
}

#[test]
fn sigint_reaches_the_process() {
    assert_eq!(signalled(Signal::INT), ("got INT\n".to_owned(), Some(4)));
}

#[test]
fn three_signals_end_a_process_that_heeds_none() {
    let host = Host::new();
    // A shell with -c catches SIGINT, and ends by it once the command in hand is over: it has to be told to ignore it.
    let (mut child, out) = start(&host, "trap '' INT TERM; echo ready; while :; do sleep 1; done");
    for signal in [Signal::INT, Signal::TERM, Signal::INT] {
        kill_process(Pid::from_child(&child), signal).expect("sent");
        sleep(Duration::from_millis(200));
    }
    child.stdout = Some(out.into_inner());
    let run = finish(child, Vec::new()).expect(137);
    assert!(run.stderr.contains("three signals"), "{}", run.stderr);
    host.assert_clean();
}
