// SPDX-License-Identifier: Apache-2.0
//! Snapshots: a running container written down, and gone on with as often as one likes.

use crate::support::debian;
use crate::support::{Host, SKEW, files, finish, now, times, wait};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Counts what it is told to, and says something random with each number.
const COUNT: &str = "i=0; while read x; do i=$((i+1)); echo $i $(head -c 8 /dev/urandom | od -An -tx8); done";
/// The same in Python, whose numbers are in the memory of one process and in no pipe.
const PYTHON: &str = "import os, sys\nn = 0\nfor line in sys.stdin:\n    n += 1\n    \
                      print(n, os.urandom(8).hex(), len({i: str(i) for i in range(1000)}), flush=True)\n";

/// A container that is talked to.
struct Talk {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Talk {
    fn begin(host: &Host, args: &[&str]) -> Self {
        let mut child = host.command(args).stdin(Stdio::piped()).spawn().expect("the binary starts");
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    fn ask(&mut self, text: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{text}").unwrap();
        self.hear()
    }

    #[track_caller]
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it said no more: {line:?}");
        line.trim().to_owned()
    }

    /// Gives its end of input, and its exit code.
    fn end(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        wait(&mut self.child, Duration::from_secs(60)).expect("it ends")
    }
}

fn counter(name: &str) -> Vec<&str> {
    vec!["run", "--rm", "-i", "-u", "0", "--name", name, "--entrypoint", "", "demo", "sh", "-c", COUNT]
}

fn snapshots(host: &Host) -> Vec<PathBuf> {
    files(&host.data_root().join("snapshots"))
}

#[test]
fn a_counter_goes_on_from_its_number_in_each_copy_and_in_the_original() {
    let host = Host::new();
    let mut original = Talk::begin(&host, &counter("one"));
    assert!(original.ask("").starts_with("1 "));
    host.isopod(&["snapshot", "create", "one", "now"]).expect(0);
    let listed = host.isopod(&["snapshot", "ls", "--format", "{{.Name}} {{.Container}}"]).expect(0);
    assert_eq!(listed.text(), "now one\n");
    let mut copies: Vec<_> = ["a", "b"]
        .map(|name| Talk::begin(&host, &["run", "--rm", "-i", "--from-snapshot", "now", "--name", name]))
        .into();
    copies.push(original);
    let said: Vec<_> = copies.iter_mut().map(|talk| talk.ask("")).collect();
    for (n, line) in said.iter().enumerate() {
        assert!(line.starts_with("2 "), "{said:?}");
        assert!(!said[..n].contains(line), "the same random number twice: {said:?}");
    }
    assert!(copies[0].ask("").starts_with("3 "), "they go on");
    for talk in copies {
        assert_eq!(talk.end(), Some(0));
    }
    host.isopod(&["snapshot", "rm", "now"]).expect(0);
    assert_eq!(snapshots(&host), Vec::<PathBuf>::new());
    host.assert_clean();
}

#[test]
fn a_python_process_and_a_redis_with_ten_thousand_keys_live_on_in_copies() {
    let host = Host::new();
    let layout = debian::layout();
    host.isopod(&["load", "-q", "-i", layout.to_str().unwrap()]).expect(0);
    python(&host);
    redis(&host);
    host.assert_clean();
}

fn python(host: &Host) {
    let args = ["run", "--rm", "-i", "--name", "py", debian::NAME, "python3", "-c", PYTHON];
    let mut original = Talk::begin(host, &args);
    for n in 1..4 {
        assert!(original.ask("").starts_with(&format!("{n} ")));
    }
    host.isopod(&["snapshot", "create", "py", "three"]).expect(0);
    let copy = |name| Talk::begin(host, &["run", "--rm", "-i", "--from-snapshot", "three", "--name", name]);
    let mut talks = [original, copy("py1"), copy("py2")];
    let said = talks.each_mut().map(|talk| talk.ask(""));
    assert!(said.iter().all(|line| line.starts_with("4 ") && line.ends_with(" 1000")), "{said:?}");
    assert!(said[0] != said[1] && said[1] != said[2] && said[0] != said[2], "{said:?}");
    for talk in talks {
        assert_eq!(talk.end(), Some(0));
    }
}

/// A Redis with keys, and a script that passes on what it is asked over stdin.
const REDIS: &str = "redis-server --port 0 --unixsocket /tmp/r --save '' --daemonize yes >/dev/null; \
                     until redis-cli -s /tmp/r ping >/dev/null 2>&1; do :; done; \
                     redis-cli -s /tmp/r eval 'for i=1,10000 do redis.call(\"set\", \"key:\"..i, i) end' 0 >/dev/null; \
                     echo ready; while read ask; do redis-cli -s /tmp/r $ask; done";

fn redis(host: &Host) {
    let args = [
        "run",
        "--rm",
        "-i",
        "-m",
        "512m",
        "--tmpfs",
        "/tmp",
        "--name",
        "redis",
        debian::NAME,
        "sh",
        "-c",
        REDIS,
    ];
    let mut original = Talk::begin(host, &args);
    assert_eq!(original.hear(), "ready");
    let mut copy = Talk::begin(host, &["fork", "redis", "--rm", "-i", "--name", "other"]);
    for talk in [&mut copy, &mut original] {
        assert_eq!(talk.ask("dbsize"), "10000");
        assert_eq!(talk.ask("get key:7777"), "7777");
    }
    assert_eq!(copy.ask("set key:7777 changed"), "OK");
    assert_eq!(copy.ask("get key:7777"), "changed");
    assert_eq!(original.ask("get key:7777"), "7777", "they go separate ways");
    assert_eq!(copy.end(), Some(0));
    assert_eq!(original.end(), Some(0));
}

#[test]
fn every_damaged_byte_of_a_snapshot_is_found_before_anything_runs() {
    let host = Host::new();
    let mut original = Talk::begin(&host, &counter("one"));
    original.ask("");
    host.isopod(&["snapshot", "create", "one", "whole"]).expect(0);
    assert_eq!(original.end(), Some(0));
    let path = snapshots(&host).remove(0);
    let about = fs::metadata(&path).unwrap();
    // It has all that the container had in memory.
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    let len = about.len();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // Everywhere: the head, the state, what is there of the memory and what is not. A sequence of our own, the same each time.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for n in 0..times(60) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let at = if n % 3 == 0 { random % 60_000 } else { random % len };
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
        let run = host.isopod(&["run", "--rm", "--from-snapshot", "whole"]);
        assert_eq!(run.code, Some(125), "byte {at}: {}", run.stderr);
        assert!(run.stderr.contains("cannot") && run.stderr.contains("cause:"), "byte {at}: {}", run.stderr);
        file.write_all_at(&byte, at).unwrap();
    }
    for cut in [0, 1, 63, 64, 5000, len - 4096, len - 1] {
        file.set_len(cut).unwrap();
        host.isopod(&["run", "--rm", "--from-snapshot", "whole"]).expect(125);
    }
    host.assert_clean();
}

#[test]
fn whoever_is_killed_there_is_a_whole_snapshot_or_none_and_the_next_one_works() {
    let host = Host::new();
    let mut original = Talk::begin(&host, &counter("one"));
    original.ask("");
    for milliseconds in [0, 2, 5, 10, 30, 60, 100, 200, 400, 600, 800] {
        let mut client = host.command(&["snapshot", "create", "one", "try"]).spawn().unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        client.kill().unwrap();
        let done = client.wait().unwrap().code() == Some(0);
        let made = snapshots(&host);
        assert!(made.len() <= 1 && (!done || made.len() == 1), "{made:?}");
        if made.len() == 1 {
            host.isopod(&["snapshot", "inspect", "try"]).expect(0);
            host.isopod(&["snapshot", "rm", "try"]).expect(0);
        }
    }
    // The original has noticed nothing.
    assert!(original.ask("").starts_with("2 "));
    let client = host.command(&["snapshot", "create", "one", "try"]).spawn().unwrap();
    thread::sleep(Duration::from_millis(100));
    original.child.kill().unwrap();
    original.child.wait().unwrap();
    let end = finish(client, Vec::new());
    assert!(end.code == Some(1) && end.stderr.contains("not running"), "{}", end.stderr);
    assert_eq!(snapshots(&host), Vec::<PathBuf>::new());
    host.assert_clean();
}

#[test]
fn whoever_is_killed_while_a_snapshot_is_restored_leaves_it_whole() {
    let host = Host::new();
    let mut original = Talk::begin(&host, &counter("one"));
    original.ask("");
    host.isopod(&["snapshot", "create", "one", "kept"]).expect(0);
    assert_eq!(original.end(), Some(0));
    let copy = ["run", "--rm", "-i", "--name", "copy", "--from-snapshot", "kept"];
    for milliseconds in [0, 1, 2, 3, 5, 8, 12, 20, 50, 100, 200, 400] {
        let mut child = host.command(&copy).spawn().unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut last = Talk::begin(&host, &copy);
    assert!(last.ask("").starts_with("2 "));
    assert_eq!(last.end(), Some(0));
    host.assert_clean();
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let host = Host::new();
    let mut talk = Talk::begin(&host, &counter("one"));
    talk.ask("");
    host.isopod(&["pause", "one"]).expect(0);
    let status = || host.isopod(&["ps", "--format", "{{.State}} {{.Status}}"]).expect(0).text().to_owned();
    assert!(status().starts_with("paused ") && status().contains("(Paused)"), "{}", status());
    writeln!(talk.child.stdin.as_mut().unwrap()).unwrap();
    host.isopod(&["pause", "one"]).expect(1);
    host.isopod(&["snapshot", "create", "one", "no"]).expect(1);
    let began = Instant::now();
    thread::sleep(Duration::from_secs(3));
    host.isopod(&["unpause", "one"]).expect(0);
    assert!(talk.hear().starts_with("2 "), "after {:?}", began.elapsed());
    host.isopod(&["unpause", "one"]).expect(1);
    assert_eq!(talk.end(), Some(0));
    host.assert_clean();
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let host = Host::new();
    for (args, why) in [
        (&["snapshot", "create", "nobody", "x"][..], "no container"),
        (&["run", "--from-snapshot", "none"], "no snapshot"),
        (&["run", "--from-snapshot", "../x"], "no snapshot"),
        (&["fork", "nobody"], "no container"),
        (&["pause", "nobody"], "no container"),
        (&["snapshot", "rm", "none"], "no snapshot"),
    ] {
        let run = host.isopod(args);
        assert!(run.code != Some(0) && run.stderr.contains(why), "{args:?}: {}", run.stderr);
    }
    let mixed = host.isopod(&["run", "--from-snapshot", "x", "-m", "1g"]);
    assert!(mixed.code == Some(125) && mixed.stderr.contains("--memory"), "{}", mixed.stderr);
}

/// Says who it is each time it is asked; the image has no machine id of its own.
const WHO: &str = "echo 0123456789abcdef0123456789abcdef >/etc/machine-id; \
                   while read x; do echo $(cat /etc/machine-id) $(hostname) $(cat /etc/hostname) \
                   $(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' ') \
                   $(adjtimex | sed -n 's/.*time.tv_u*sec: *//p'); done";

#[test]
fn each_copy_is_somebody_of_its_own() {
    let host = Host::new();
    let args = ["run", "--rm", "-i", "-u", "0", "--name", "one", "--entrypoint", "", "demo", "sh", "-c", WHO];
    let mut original = Talk::begin(&host, &args);
    let who = original.ask("");
    host.isopod(&["snapshot", "create", "one", "many"]).expect(0);
    assert_eq!(original.end(), Some(0));
    let mut seen: [BTreeSet<String>; 4] = Default::default();
    for (set, word) in seen.iter_mut().zip(who.split(' ')) {
        set.insert(word.to_owned());
    }
    for _ in 0..times(3) {
        let mut copy = Talk::begin(&host, &["run", "--rm", "-i", "--from-snapshot", "many"]);
        let before = now();
        let who = copy.ask("");
        let after = now();
        let words: Vec<_> = who.split(' ').collect();
        assert_eq!((words.len(), words[1]), (6, words[2]), "{who}");
        let clock: Duration =
            Duration::from_secs(words[4].parse().unwrap()) + Duration::from_micros(words[5].parse().unwrap());
        assert!(before <= clock + SKEW && clock <= after + SKEW, "{before:?} {clock:?} {after:?}");
        for (set, word) in seen.iter_mut().zip(words) {
            assert!(set.insert(word.to_owned()), "seen before: {word}");
        }
        assert_eq!(copy.end(), Some(0));
    }
    host.assert_clean();
}

#[test]
fn several_copies_at_once_run_beside_each_other() {
    let host = Host::new();
    let mut original = Talk::begin(&host, &counter("one"));
    original.ask("");
    let forked = host.command(&["fork", "one", "--rm", "--name", "a", "--name", "b"]).spawn().unwrap();
    // Neither has any input: both come to its end.
    finish(forked, Vec::new()).expect(0);
    assert_eq!(original.end(), Some(0));
    host.assert_clean();
}
