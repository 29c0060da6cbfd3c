// SPDX-License-Identifier: Apache-2.0
//! Templates: made once, used by all, never half, and never the reason for two machines to be alike.

use crate::support::{Host, SKEW, files, finish, now, times};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// What a machine knows of itself, in the first line that its first program writes.
const WHO: &str =
    "adjtimex; head -c 16 /dev/urandom | od -An -tx8; cat /proc/sys/kernel/random/boot_id; hostname";

fn templates(host: &Host) -> Vec<PathBuf> {
    let all = files(&host.data_root().join("templates"));
    all.into_iter().filter(|path| path.extension().is_some_and(|e| e == "template")).collect()
}

/// What is there that is no template.
fn litter(host: &Host) -> Vec<PathBuf> {
    let all = files(&host.data_root().join("templates"));
    let known = |e: &OsStr| e == "template" || e == "touched";
    let expected = |path: &PathBuf| path.extension().is_some_and(known) || path.ends_with("lock");
    all.into_iter().filter(|path| !expected(path)).collect()
}

#[test]
fn two_first_runs_at_once_make_one_template_between_them() {
    let host = Host::without_templates();
    host.isopod(&["images"]).expect(0);
    let run = || host.command(&["run", "--rm", "--entrypoint", "", "demo", "echo", "up"]).spawn().unwrap();
    let (one, two) = (run(), run());
    assert_eq!(finish(one, Vec::new()).expect(0).text(), "up\n");
    assert_eq!(finish(two, Vec::new()).expect(0).text(), "up\n");
    assert_eq!(templates(&host).len(), 1);
    let listed = host.isopod(&["template", "ls", "--format", "{{.Memory}} {{.CPUs}} {{.Usable}}"]).expect(0);
    assert_eq!(listed.text(), "256 MiB 1 yes\n");
    let key = host.isopod(&["template", "ls", "-q"]).expect(0);
    host.isopod(&["template", "rm", key.text().trim()]).expect(0);
    host.isopod(&["template", "rm", key.text().trim()]).expect(1);
    assert_eq!((templates(&host).len(), litter(&host).len()), (0, 0));
    host.assert_clean();
}

#[test]
fn who_makes_a_template_may_be_killed_at_any_moment() {
    let host = Host::without_templates();
    host.isopod(&["images"]).expect(0);
    for milliseconds in [1, 5, 20, 100, 700, 2000, 3300, 3500, 3700, 3900] {
        let mut maker = host.command(&["template", "build"]).spawn().expect("the binary starts");
        thread::sleep(Duration::from_millis(milliseconds));
        maker.kill().expect("killed");
        let ended = maker.wait().expect("our child");
        let made = templates(&host);
        assert!(ended.code() == Some(0) || made.is_empty(), "half a template: {made:?}");
        assert_eq!(litter(&host), Vec::<PathBuf>::new());
        made.iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    host.isopod(&["template", "build"]).expect(0);
    assert_eq!(templates(&host).len(), 1);
    host.assert_clean();
}

#[test]
fn a_template_that_is_damaged_is_not_used_and_made_again() {
    let host = Host::without_templates();
    host.isopod(&["template", "build"]).expect(0);
    let path = templates(&host).remove(0);
    let before = fs::metadata(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // In the middle of what is zero in a small machine's memory.
    file.write_all_at(b"x", before.len() / 2 + 12345).unwrap();
    drop(file);
    assert_eq!(host.sh(&[], "echo up").expect(0).text(), "up\n");
    let mut byte = [0];
    let file = fs::File::open(templates(&host).remove(0)).unwrap();
    file.read_exact_at(&mut byte, before.len() / 2 + 12345).unwrap();
    assert_eq!(byte, [0], "another file");
    host.assert_clean();
}

#[test]
fn a_template_cut_short_under_a_machine_ends_that_machine_and_says_why() {
    let host = Host::without_templates();
    host.isopod(&["template", "build"]).expect(0);
    let other = Host::new();
    let path = templates(&host).remove(0);
    // Touches what it has not touched before, for ever.
    let script = "echo up; while :; do cat /proc/*/stat /sys/kernel/* >/dev/null 2>&1; sh -c :; done";
    let args = ["run", "--rm", "-u", "0", "--entrypoint", "", "demo", "sh", "-c", script];
    let (mut doomed, mut neighbour) =
        (host.command(&args).spawn().unwrap(), other.command(&args).spawn().unwrap());
    for child in [&mut doomed, &mut neighbour] {
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    }
    OpenOptions::new().write(true).open(&path).unwrap().set_len(3 << 20).unwrap();
    let end = finish(doomed, Vec::new()).expect(137);
    assert!(end.stderr.contains("cut short"), "{}", end.stderr);
    let still = other.machine_pid();
    kill_process(Pid::from_raw(still.cast_signed()).unwrap(), Signal::KILL).unwrap();
    finish(neighbour, Vec::new()).expect(137);
    assert_eq!(host.sh(&[], "echo up").expect(0).text(), "up\n", "the next run makes a new one");
    host.assert_clean();
}

#[test]
fn machines_of_one_template_are_each_their_own() {
    let host = Host::new();
    let mut seen = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for _ in 0..times(6) {
        let before = now();
        let said = host.sh(&[], WHO).expect(0);
        let after = now();
        let value = |name: &str| -> u64 {
            let line = said.text().lines().find(|line| line.contains(name)).expect("adjtimex tells");
            line.rsplit(|c: char| !c.is_ascii_digit()).find(|n| !n.is_empty()).unwrap().parse().unwrap()
        };
        let guest = Duration::from_secs(value("time.tv_sec")) + Duration::from_micros(value("time.tv_usec"));
        assert!(before <= guest + SKEW && guest <= after + SKEW, "{before:?} {guest:?} {after:?}");
        let lines: Vec<_> = said.text().lines().rev().take(3).map(str::to_owned).collect();
        for (set, line) in seen.iter_mut().zip(lines) {
            assert!(set.insert(line.clone()), "seen before: {line}");
        }
    }
}

#[test]
fn a_machine_that_starts_from_a_template_is_what_was_asked_for() {
    let host = Host::new();
    for (flags, cpus, most) in
        [(["--cpus", "1", "-m", "128m"], "1", 131_072), (["--cpus", "2", "-m", "512m"], "2", 524_288)]
    {
        let began = Instant::now();
        let said =
            host.sh(&flags, "nproc; sed -n 's/MemTotal: *\\([0-9]*\\) .*/\\1/p' /proc/meminfo").expect(0);
        let mut lines = said.text().lines();
        assert_eq!(lines.next(), Some(cpus), "after {:?}", began.elapsed());
        let memory: u64 = lines.next().unwrap().parse().unwrap();
        assert!(most * 8 / 10 < memory && memory <= most, "{memory}");
    }
}
