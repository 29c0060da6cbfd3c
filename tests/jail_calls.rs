// SPDX-License-Identifier: Apache-2.0
//! The system calls of a machine's process: in which order its jail closes, that what is not on a thread's list ends it,
//! and that nothing on a list is for show.

use crate::jail::Prisoner;
use crate::support::attacker::{self, Deed as Attack, Device, Orders, Part};
use crate::support::captive::{self, Captive};
use crate::support::evil::{Deed, kernel};
use crate::support::layout::{Layer, Layout, digest};
use crate::support::nasty::{Tar, file};
use crate::support::{DEADLINE, Host, beneath, finish, threads, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, read_to_string};
use std::io;
use std::process::{Child, Command};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// Calls that a captured thread would begin with. None is on any list.
pub(crate) const FORBIDDEN: [(&str, i64); 23] = [
    ("execve", 59),
    ("execveat", 322),
    ("fork", 57),
    ("vfork", 58),
    ("clone", 56),
    ("clone3", 435),
    ("open", 2),
    ("openat", 257),
    ("openat2", 437),
    ("socket", 41),
    ("connect", 42),
    ("ptrace", 101),
    ("process_vm_writev", 311),
    ("mount", 165),
    ("unshare", 272),
    ("setns", 308),
    ("bpf", 321),
    ("io_uring_setup", 425),
    ("memfd_create", 319),
    ("seccomp", 317),
    // What puts a page of a file's into a pipe, and has it written to (F9).
    ("splice", 275),
    ("vmsplice", 278),
    ("tee", 276),
];

#[test]
fn a_thread_that_makes_a_call_that_is_not_on_its_list_ends_the_process() {
    let host = Host::new();
    for name in ["isopod-vmm", "vcpu0", "fs", "vsock", "rng"] {
        for (call, number) in FORBIDDEN {
            let prisoner = Prisoner::start(&host, &[]);
            let (_, thread) = threads(prisoner.pid).into_iter().find(|(n, _)| n == name).expect("it runs");
            Captive::of(thread).ends_by(number, &[]);
            let run = prisoner.end();
            assert_eq!(run.code, Some(125), "{call} by {name}: {}", run.stderr);
            assert!(run.stderr.contains("SIGSYS"), "{call} by {name}: {}", run.stderr);
        }
    }
    host.assert_clean();
}

/// The thread that maps what a start touches is there only as long as that takes, and only if somebody found out before.
#[test]
fn the_thread_that_maps_pages_ends_its_process_by_such_a_call_too() {
    let host = Host::new();
    let run = ["run", "--rm", "--entrypoint", "", "demo", "true"];
    host.isopod(&run).expect(0);
    for (call, number) in FORBIDDEN {
        let (code, said) = captive::run_with_call(&host.command(&run), "pages", number);
        assert!(code == Some(125) && said.contains("SIGSYS"), "{call}: {code:?} {said}");
    }
    host.assert_clean();
}

/// What strace saw of the threads of a machine's process: thread's name, and what it called.
fn traced(trace: &str) -> Vec<(String, String)> {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut lines = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        let call = call.trim_start();
        if let Some(name) = call.split_once("PR_SET_NAME, \"").and_then(|(_, rest)| rest.split('"').next()) {
            names.insert(thread, name.to_owned());
        }
        lines.push((thread, call.to_owned()));
    }
    let named = |(thread, call): (&str, String)| Some((names.get(thread)?.clone(), call));
    lines.into_iter().filter_map(named).collect()
}

#[test]
fn the_jail_closes_in_order_before_the_guests_first_instruction() {
    let host = Host::new();
    let trace = host.scratch("trace");
    let kernel = kernel(host.root(), Deed::PowerOff);
    let run = ["run", "--rm", "--no-template", "--kernel", kernel.to_str().unwrap(), "demo"];
    let args = ["-f", "-o", trace.to_str().unwrap()];
    finish(beneath("strace", &args, &host.command(&run)).spawn().unwrap(), Vec::new()).expect(125);
    let calls = traced(&read_to_string(&trace).unwrap());
    let order = [
        ("isopod-vmm", "close_range("),
        ("isopod-vmm", "execve("),
        ("isopod-vmm", "recvmsg("),
        ("isopod-vmm", "write("),
        ("isopod-vmm", "setresuid("),
        ("isopod-vmm", "unshare(CLONE_NEWUSER"),
        ("isopod-vmm", "unshare(CLONE_NEWNS"),
        ("isopod-vmm", "unshare(CLONE_NEWNET"),
        ("isopod-vmm", "pivot_root("),
        ("isopod-vmm", "umount2("),
        ("isopod-vmm", "prlimit64("),
        ("isopod-vmm", "prctl(PR_CAPBSET_DROP"),
        ("isopod-vmm", "capset("),
        ("isopod-vmm", "prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE"),
        ("isopod-vmm", "prctl(PR_SET_NO_NEW_PRIVS"),
        ("isopod-vmm", "landlock_restrict_self("),
        ("isopod-vmm", "recvmsg("),
        ("isopod-vmm", "seccomp("),
        ("vcpu0", "ioctl(13, KVM_RUN"),
    ];
    let mut rest = calls.iter();
    for (thread, call) in order {
        // The number of a descriptor is nobody's business.
        let call = call.split_once("13, ").map_or(call, |(_, request)| request);
        let found = rest.any(|(t, c)| t == thread && (c.starts_with(call) || c.contains(call)));
        assert!(found, "{thread} does not call {call} after what is to come before");
    }
    let closes = |thread: &str| calls.iter().rposition(|(t, c)| t == thread && c.starts_with("seccomp("));
    let last = closes("isopod-vmm").unwrap();
    // Side by side, and all of them before the first thread.
    for thread in ["fs", "vsock", "rng", "vcpu0"] {
        assert!(closes(thread).is_some_and(|at| at < last), "{thread}");
    }
    let allowed: BTreeSet<String> = lists().into_iter().map(|rule| rule.call).collect();
    let after = &calls[last + 1..];
    for (at, (thread, call)) in after.iter().enumerate() {
        let name = call.trim_start_matches("<... ").split([' ', '(']).next().unwrap();
        // An end, or that of the last filter's own call.
        let is_end = name.starts_with("+++") || call.starts_with("<... seccomp resumed");
        // Of a thread that is killed in a call strace may say any, or none: what a filter forbids ends by another signal.
        let goes_on =
            |(t, c): &(String, String)| t == thread && c.starts_with(&format!("<... {name} resumed"));
        let is_cut = call.ends_with("<unfinished ...>") && !after[at..].iter().any(goes_on);
        assert!(is_end || is_cut || allowed.contains(name), "{thread} calls {call}");
        assert!(!call.contains("SIGSYS"), "{thread}: {call}");
    }
}

/// A rule, as it is told.
#[derive(Debug)]
struct Rule {
    thread: String,
    call: String,
    why: String,
    number: u64,
    /// An argument's number, and what it is, or which bits it lacks.
    is: Vec<(usize, u64)>,
    lacks: Vec<(usize, u64)>,
}

fn lists() -> Vec<Rule> {
    let told = Host::new().isopod(&["doctor", "--filters", "--format", "json"]).expect(0);
    let told: Vec<Value> = serde_json::from_slice(&told.stdout).unwrap();
    let text = |rule: &Value, key: &str| rule[key].as_str().unwrap().to_owned();
    let argument = |rule: &Value, key: &str| {
        let number = |argument: &Value| usize::try_from(argument["number"].as_u64().unwrap()).unwrap();
        let all = rule["arguments"].as_array().unwrap().iter();
        all.filter_map(|argument| Some((number(argument), argument[key].as_u64()?))).collect()
    };
    let rule = |rule: &Value| Rule {
        thread: text(rule, "thread"),
        call: text(rule, "call"),
        why: text(rule, "why"),
        number: rule["number"].as_u64().unwrap(),
        is: argument(rule, "is"),
        lacks: argument(rule, "has_none_of"),
    };
    told.iter().map(rule).collect()
}

impl Rule {
    /// Whether it is what lets a call through: `[ 16] ioctl(0xd, 0xae80, 0`, of a thread of this name.
    fn allows(&self, thread: &str, call: &str) -> bool {
        let number = call.trim_start_matches(['[', ' ']).split(']').next().and_then(|n| n.parse().ok());
        let arguments: Vec<u64> = call
            .split_once('(')
            .map(|(_, rest)| rest.split([',', ' ', ')']).filter(|text| !text.is_empty()))
            .into_iter()
            .flatten()
            .map_while(|text| u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok())
            .collect();
        let low = |n: usize| arguments.get(n).map(|argument| argument & u64::from(u32::MAX));
        thread.trim_end_matches(|c: char| c.is_ascii_digit()) == self.thread
            && number == Some(self.number)
            && self.is.iter().all(|(n, value)| low(*n) == Some(*value))
            && self.lacks.iter().all(|(n, bits)| low(*n).is_some_and(|argument| argument & bits == 0))
    }
}

/// The calls on each thread's list.
fn calls() -> BTreeMap<String, BTreeSet<String>> {
    let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rule in lists() {
        calls.entry(rule.thread).or_default().insert(rule.call);
    }
    calls
}

#[test]
fn the_threat_model_says_how_long_each_list_is() {
    let text = include_str!("../docs/threat-model.md");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, thread, _, calls, _] = cells[..] else { return None };
        Some((thread.trim_matches('`').to_owned(), calls.parse::<usize>().ok()?))
    };
    let said: BTreeMap<String, usize> = text.lines().filter_map(row).collect();
    let there: BTreeMap<String, usize> =
        calls().into_iter().map(|(thread, calls)| (thread, calls.len())).collect();
    assert_eq!(said, there);
    let requests = lists().iter().filter(|rule| rule.thread == "vcpu" && rule.call == "ioctl").count();
    assert!(text.contains(&format!("of `ioctl`, {requests} requests")), "{requests}");
}

#[test]
fn the_lists_are_short() {
    let calls = calls();
    for (thread, most) in [
        ("isopod-vmm", 35),
        ("vcpu", 20),
        ("fs", 45),
        ("vsock", 30),
        ("rng", 30),
        ("pages", 30),
        ("isopod-unpack", 30),
    ] {
        let n = calls[thread].len();
        assert!(n <= most, "{thread} has {n} system calls: {:?}", calls[thread]);
    }
}

/// Files whose reading takes all that is mended in KVM's place, more memory than at first, output that nobody reads for a
/// while.
const BUSY: &str = "cat /proc/interrupts; echo 1 > /proc/sys/vm/drop_caches; ls -R /bin > /dev/null; \
    cat /bin/busybox > /tmp/copy; head -c 60000000 /dev/zero > /tmp/zeros; head -c 2000000 /dev/zero";

/// What a machine's threads call in a life with all that there is in it: its image is taken in and its template made, it is
/// busy, another one is started that knows what that touched; one is attacked at every device, and one ends by itself.
fn life(host: &Host) -> Vec<(String, String)> {
    let fixed =
        ["run", "--rm", "--security-opt", "systempaths=unconfined", "-u", "0", "--entrypoint", "", "demo"];
    let script = |script| host.command(&[&fixed[..], &["sh", "-c", script]].concat());
    let mut calls = followed(host, &script(BUSY), |busy| {
        // Nobody reads until all the pipes on the way are full.
        let mut out = busy.stdout.take().unwrap();
        let reader = thread::spawn(move || {
            sleep(Duration::from_secs(10));
            io::copy(&mut out, &mut io::sink())
        });
        assert_eq!(wait(busy, DEADLINE), Some(Some(0)));
        reader.join().unwrap().unwrap();
    });
    calls.extend(followed(host, &script("true"), |run| assert_eq!(wait(run, DEADLINE), Some(Some(0)))));
    for deed in [Deed::TripleFault, Deed::FarRestore] {
        let kernel = kernel(host.root(), deed);
        let ends = ["run", "--rm", "--no-template", "--kernel", kernel.to_str().unwrap(), "demo"];
        let ended = |run: &mut Child| assert_eq!(wait(run, DEADLINE), Some(Some(125)));
        calls.extend(followed(host, &host.command(&ends), ended));
    }
    // A process that is to end by itself.
    calls.extend(followed(host, &host.command(&["doctor"]), |run| drop(run.wait())));
    let names: Vec<_> = (0..20_000).map(|n| file(format!("a-name-that-takes-some-room-{n}"), "")).collect();
    let tar = Tar::of(names);
    let layer = Layer { diff_id: digest(&tar), compression: "", blob: tar };
    let layout = Layout::new("large", vec![layer]).write(&host.scratch("layout"));
    let load = host.command(&["load", "-q", "-i", layout.to_str().unwrap()]);
    calls.extend(followed(host, &load, |run| assert_eq!(wait(run, DEADLINE), Some(Some(0)))));
    let sequences = |device| Orders { count: 40, ..Orders::new(Attack::Sequences, device) };
    let mut attacks = Device::ALL.map(sequences).to_vec();
    let agent = |part, count| Orders { count, ..Orders::agent(part) };
    attacks.extend([
        agent(Part::AttacksFromWithin, 200),
        agent(Part::ShutsDown, 0),
        agent(Part::NothingForEver, 0),
    ]);
    for orders in attacks {
        let (command, console) = attacker::command(host, &orders, &[]);
        // The one before had the same.
        let _ = fs::remove_file(&console);
        calls.extend(followed(host, &command, |run| {
            // One part is never over: so much of it is enough for what it calls.
            let ends =
                !(matches!(orders.deed, Attack::Agent) && orders.device == Part::NothingForEver as u64);
            let within = Instant::now() + if ends { DEADLINE } else { ENOUGH };
            let over = || read_to_string(&console).unwrap_or_default().contains("halt");
            while !over() && run.try_wait().unwrap().is_none() && Instant::now() < within {
                sleep(Duration::from_millis(20));
            }
            assert!(!ends || Instant::now() < within, "it is not over: {orders:?}");
            // The engine is strace's one child, unless the attack was its end.
            let engine = read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap_or_default();
            let engine = engine.split_whitespace().next().and_then(|engine| engine.parse().ok());
            let _ = engine.map(|engine| kill(Pid::from_raw(engine), Signal::SIGKILL));
            run.wait().unwrap();
        }));
    }
    calls
}

/// What the threads of a machine call until `end` has seen to the run's end.
fn followed(host: &Host, plain: &Command, end: impl FnOnce(&mut Child)) -> Vec<(String, String)> {
    let trace = host.scratch("trace");
    let strace = ["-f", "-n", "-e", "raw=ioctl,fcntl,mmap,madvise", "-o", trace.to_str().unwrap()];
    let mut run = beneath("strace", &strace, plain).spawn().unwrap();
    end(&mut run);
    traced(&read_to_string(&trace).unwrap())
}

/// How long the one that has no end is followed.
const ENOUGH: Duration = Duration::from_secs(10);

#[test]
fn nothing_on_a_list_is_for_show() {
    let host = Host::without_templates();
    let calls = life(&host);
    // The heap is one: it grows with whichever thread asks last.
    let used = |rule: &Rule| {
        calls
            .iter()
            .any(|(thread, call)| rule.allows(if rule.call == "brk" { &rule.thread } else { thread }, call))
    };
    // What is mended in KVM's place is mended where KVM emulates.
    let emulates = host.isopod(&["doctor"]).text().contains("emulating");
    let elsewhere =
        |rule: &Rule| rule.why.contains("vDSO") || !emulates && rule.why.contains("in KVM's place");
    let unused = |rule: &&Rule| !used(rule) && !elsewhere(rule);
    let unused: Vec<String> = lists()
        .iter()
        .filter(unused)
        .map(|rule| format!("{} {} {:x?}", rule.thread, rule.call, rule.is))
        .collect();
    assert_eq!(unused, Vec::<String>::new());
}
