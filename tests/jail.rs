// SPDX-License-Identifier: Apache-2.0
//! What holds a machine's process back, looked at from outside: that each layer is there, that it is told when one is
//! not, and that none is for show.

use crate::support::evil::{Deed, kernel};
use crate::support::layout::{Layer, Layout};
use crate::support::nasty::{Tar, file};
use crate::support::{DEADLINE, Host, Run, beneath, files, finish, status, threads, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, read_link, read_to_string};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
const NAME: &str = "prisoner";

/// A machine whose guest stands still: its container is starting, for ever. It is there in milliseconds.
pub(crate) struct Prisoner<'a> {
    pub(crate) host: &'a Host,
    run: Child,
    pub(crate) pid: u32,
}

impl<'a> Prisoner<'a> {
    pub(crate) fn start(host: &'a Host, flags: &[&str]) -> Self {
        let mut run = command(host, flags).spawn().expect("the binary starts");
        let within = Instant::now() + SOON;
        let pid = loop {
            let inspect = host.isopod(&["inspect", "--format", "{{.State.Pid}}", NAME]);
            match inspect.text().trim().parse() {
                // Its last thread to be closed in is the first.
                Ok(pid) if pid != 0 && (status(pid, "Seccomp") == "2" || is_unfiltered(flags)) => break pid,
                _ => {}
            }
            if run.try_wait().expect("our child").is_some() || Instant::now() > within {
                panic!("no machine came up: {}", finish(run, Vec::new()).stderr);
            }
        };
        Self { host, run, pid }
    }

    /// What `doctor` says of each layer.
    fn layers(&self) -> BTreeMap<String, Option<bool>> {
        let told = self.host.isopod(&["doctor", "--jail", NAME, "--format", "json"]);
        let told: Vec<Value> = serde_json::from_slice(&told.stdout).expect("a list");
        let name = |layer: &Value| layer["name"].as_str().expect("a name").to_owned();
        told.iter().map(|layer| (name(layer), layer["holds"].as_bool())).collect()
    }

    /// How its run ends when its process is gone.
    pub(crate) fn end(self) -> Run {
        finish(self.run, Vec::new())
    }

    fn stop(self) {
        kill_process(Pid::from_child(&self.run), Signal::TERM).expect("it runs");
        self.end().expect(143);
    }
}

fn is_unfiltered(flags: &[&str]) -> bool {
    flags.iter().any(|flag| flag.contains("no-seccomp"))
}

fn command(host: &Host, flags: &[&str]) -> Command {
    let kernel = kernel(host.root(), Deed::Halt);
    let fixed = ["run", "--rm", "--name", NAME, "--no-template", "--kernel", kernel.to_str().expect("UTF-8")];
    let mut command = host.command(&[&fixed[..], flags, &["demo"]].concat());
    // It never does start, and is not to be given up on meanwhile, however loaded the host.
    command.env("ISOPOD_START_TIMEOUT", DEADLINE.as_secs().to_string());
    command
}

#[test]
fn a_running_machine_is_held_by_every_layer_on_every_thread() {
    let host = Host::new();
    // So that there is one machine.
    host.isopod(&["template", "build", "--cpus", "2"]).expect(0);
    let run = ["run", "--rm", "--name", NAME, "--cpus", "2", "demo", "sleep", "60"];
    let run = host.command(&run).spawn().unwrap();
    let within = Instant::now() + SOON;
    // Its process is there before there is a container.
    while !host.isopod(&["inspect", "--format", "{{.State.Running}}", NAME]).text().contains("true") {
        assert!(Instant::now() < within);
    }
    let pid = host.machine_pid();
    let names: Vec<String> = threads(pid).into_iter().map(|(name, _)| name).collect();
    for name in ["isopod-vmm", "vcpu0", "vcpu1", "fs", "vsock", "rng"] {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
    for (name, thread) in threads(pid) {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(thread, set), "0000000000000000", "{set} of {name}");
        }
        assert_eq!(
            (status(thread, "NoNewPrivs"), status(thread, "Seccomp")),
            ("1".into(), "2".into()),
            "{name}"
        );
        assert_ne!(status(thread, "Seccomp_filters"), "0", "{name}");
        assert_eq!(status(thread, "Groups"), "", "{name}");
        let ids = status(thread, "Uid");
        let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        // A range of nobody's, and a number that is this process's alone.
        assert!(ids.iter().all(|id| *id == 0x7000_0000 + pid), "{ids:?} of {name}");
    }
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"] {
        let of = |process: &str| read_link(format!("/proc/{process}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    let folder = PathBuf::from(format!("/proc/{pid}"));
    assert_eq!(fs::read_dir(folder.join("root")).unwrap().count(), 0);
    assert_eq!(fs::read(folder.join("environ")).unwrap(), b"");
    // What is not dumpable is root's, whoever it is.
    assert_eq!(fs::metadata(folder.join("mem")).unwrap().uid(), 0);
    assert_eq!(strange_descriptors(pid), Vec::<PathBuf>::new());
    assert_limited(pid, 256, 2);
    let maps = read_to_string(folder.join("maps")).unwrap();
    let both = |line: &&str| line.split(' ').nth(1).is_some_and(|may| may.contains('w') && may.contains('x'));
    assert_eq!(maps.lines().find(both), None);
    let told = host.isopod(&["doctor", "--jail", NAME]).expect(0);
    assert!(!told.text().contains("BAD"), "{}", told.text());
    let isolation = host.isopod(&["inspect", "--format", "{{.Isolation}}", NAME]).expect(0);
    for layer in LAYERS.iter().filter(|layer| **layer != "landlock") {
        assert!(isolation.text().contains(layer), "{layer}: {}", isolation.text());
    }
    kill_process(Pid::from_child(&run), Signal::KILL).unwrap();
    finish(run, Vec::new());
    host.assert_clean();
    let within = Instant::now() + SOON;
    while !groups_left(&host).is_empty() && Instant::now() < within {}
    assert_eq!(groups_left(&host), Vec::<PathBuf>::new());
}

/// What a process holds that is no socket, pipe, file without a name, KVM or disk of an image's: vhost's among it.
fn strange_descriptors(pid: u32) -> Vec<PathBuf> {
    let kinds = ["anon_inode:", "socket:", "pipe:", "/memfd:", "/disks/"];
    let is_known = |name: &str| {
        kinds.iter().any(|kind| name.starts_with(kind)) || ["/dev/kvm", "/dev/null"].contains(&name)
    };
    let open = files(format!("/proc/{pid}/fd").as_ref()).into_iter().map(|fd| read_link(fd).unwrap());
    open.filter(|name| !name.to_str().is_some_and(is_known)).collect()
}

/// That a machine of so much memory and so many vCPUs can have no more of anything that is counted, by the kernel's own
/// figures: for the process, and for its control group.
fn assert_limited(pid: u32, mib: u64, cpus: u64) {
    let limits = read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let soft = |what: &str| -> u64 {
        let line = limits.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.split_whitespace().next().unwrap().parse().expect("a limit")
    };
    let memory = (mib << 20) + (mib << 20) / 32 + (64 << 20);
    assert_eq!(
        (soft("Max core file size"), soft("Max file size"), soft("Max data size")),
        (0, memory, memory)
    );
    assert!(soft("Max open files") < 1000 && soft("Max processes") == cpus + 16, "{limits}");
    let setting = |controller: &str, one: &str, two: &str| {
        let folder = |name| Some(group(pid, name)?.join(if name.is_empty() { two } else { one }));
        // In version 2 there is one group for all.
        let file = folder(controller).or_else(|| folder("")).expect("a control group");
        assert!(file.iter().any(|part| part == "isopod"), "{} is no group of its own", file.display());
        read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().to_owned()
    };
    assert_eq!(setting("memory", "memory.limit_in_bytes", "memory.max"), memory.to_string());
    assert_eq!(setting("pids", "pids.max", "pids.max"), (cpus + 16).to_string());
    // A processor more than there are vCPUs; version 2 has both figures in one file.
    let quota = setting("cpu", "cpu.cfs_quota_us", "cpu.max");
    let period = setting("cpu", "cpu.cfs_period_us", "cpu.max");
    assert_eq!(quota.split(' ').next(), Some(((cpus + 1) * 100_000).to_string().as_str()));
    assert_eq!(period.split(' ').next_back(), Some("100000"));
}

/// The folder of the control group that a process is in, for a controller of version 1, or (without a name) of version 2.
fn group(pid: u32, controller: &str) -> Option<PathBuf> {
    let groups = read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let parts = groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    let of = |part: &Vec<&str>| part[1].split(',').any(|name| name == controller);
    let place = parts.into_iter().find(of)?[2].trim_start_matches('/').to_owned();
    Some(Path::new("/sys/fs/cgroup").join(controller).join(place))
}

/// Control groups whose makers are gone, after whoever came next; of this PID namespace, for others' only time tells.
fn groups_left(host: &Host) -> Vec<PathBuf> {
    host.isopod(&["ps"]).expect(0);
    let namespace =
        read_link("/proc/self/ns/pid").unwrap().to_string_lossy().replace(|c: char| !c.is_ascii_digit(), "");
    let folders = ["memory/isopod", "pids/isopod", "cpu/isopod", "isopod"];
    let groups = folders.iter().flat_map(|folder| files(&Path::new("/sys/fs/cgroup").join(folder)));
    let maker = |group: &PathBuf| {
        let (made_in, rest) = group.file_name()?.to_str()?.split_once('-')?;
        rest.split('-').next().filter(|_| made_in == namespace)?.parse::<u32>().ok()
    };
    let gone =
        |group: &PathBuf| maker(group).is_some_and(|maker| !Path::new(&format!("/proc/{maker}")).exists());
    groups.filter(gone).collect()
}

const LAYERS: [&str; 14] = [
    "cgroup",
    "user",
    "mount",
    "pid",
    "net",
    "ipc",
    "uts",
    "cgroupns",
    "rlimits",
    "capabilities",
    "untraceable",
    "no-new-privileges",
    "landlock",
    "seccomp",
];

#[test]
fn a_layer_that_is_left_out_is_missed_from_outside_and_no_other() {
    let host = Host::new();
    for layer in LAYERS {
        // What brings another along, or shows by it.
        let (with, shows): (&str, &[&str]) = match layer {
            "user" => ("no-user", &["user", "untraceable"]),
            "no-new-privileges" => {
                ("no-new-privileges,no-landlock,no-seccomp", &["no-new-privileges", "seccomp"])
            }
            _ => ("", &[]),
        };
        let option = match layer {
            "no-new-privileges" => format!("isopod.jail=no-{with}"),
            _ => format!("isopod.jail=no-{layer}"),
        };
        let prisoner = Prisoner::start(&host, &["--security-opt", &option]);
        let expected = |name: &String| match name.as_str() {
            "landlock" => None,
            name => Some(name != layer && !shows.contains(&name)),
        };
        let wrong = |layers: BTreeMap<String, Option<bool>>| -> Vec<_> {
            layers.into_iter().filter(|(name, holds)| *holds != expected(name)).collect()
        };
        // Without a filter it is not seen that the last layer has closed.
        let within = Instant::now() + SOON;
        while !wrong(prisoner.layers()).is_empty() && Instant::now() < within {}
        assert_eq!(wrong(prisoner.layers()), [], "{option}");
        prisoner.stop();
    }
    host.assert_clean();
}

#[test]
fn a_start_is_refused_when_a_layer_cannot_be_had_and_says_which() {
    let host = Host::new();
    // The image is there from the first start on.
    Prisoner::start(&host, &[]).stop();
    let (trace, plain) = (host.scratch("trace"), command(&host, &[]));
    let traced = |args: &[&str]| {
        let args = [&["-f", "-o", trace.to_str().unwrap()], args].concat();
        beneath("strace", &args, &plain).spawn().unwrap()
    };
    let mut whole = traced(&["-e", "trace=unshare,prctl,prlimit64,landlock_restrict_self"]);
    let within = Instant::now() + DEADLINE;
    // The engine calls it too, at any time.
    while read_to_string(&trace).unwrap_or_default().matches("landlock_restrict_self(").count() < 2 {
        assert!(Instant::now() < within, "there is no jail");
    }
    let calls = read_to_string(&trace).unwrap();
    kill_process(engine_of(&whole), Signal::TERM).unwrap();
    assert!(wait(&mut whole, DEADLINE).is_some());
    for (call, which, error, layer) in [
        ("clone", "", "ENOSPC", "pid"),
        ("unshare", "CLONE_NEWUSER", "ENOSPC", "user"),
        ("unshare", "CLONE_NEWNS", "EPERM", "mount"),
        ("unshare", "CLONE_NEWNET", "ENOSPC", "net"),
        ("unshare", "CLONE_NEWIPC", "ENOSPC", "ipc"),
        ("unshare", "CLONE_NEWUTS", "ENOSPC", "uts"),
        ("unshare", "CLONE_NEWCGROUP", "ENOSPC", "cgroupns"),
        ("pivot_root", "", "EINVAL", "mount"),
        ("setresuid", "", "EAGAIN", "user"),
        ("prlimit64", "RLIMIT_NOFILE, {", "EPERM", "rlimits"),
        ("capset", "", "EPERM", "capabilities"),
        ("prctl", "PR_SET_DUMPABLE, SUID_DUMP_DISABLE", "EINVAL", "untraceable"),
        ("prctl", "PR_SET_NO_NEW_PRIVS", "EINVAL", "no-new-privileges"),
        ("landlock_restrict_self", "", "EOPNOTSUPP", "landlock"),
        ("seccomp", "", "EINVAL", "seccomp"),
    ] {
        let when = match which {
            "" => String::new(),
            which => format!(":when={}", count_to(&calls, call, which)),
        };
        let inject = format!("inject={call}:error={error}{when}");
        let run = finish(traced(&["-e", &format!("trace={call}"), "-e", &inject]), Vec::new()).expect(125);
        let named = format!("the jail's layer `{layer}` cannot be had");
        assert!(run.stderr.contains(&named), "{call}: {}", run.stderr);
        assert!(run.stderr.contains(&format!("isopod.jail=no-{layer}")), "{call}: {}", run.stderr);
    }
    host.assert_clean();
}

/// The engine is strace's one child.
fn engine_of(strace: &Child) -> Pid {
    let children = read_to_string(format!("/proc/{0}/task/{0}/children", strace.id())).unwrap();
    children.split_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?)).expect("it runs")
}

/// How many calls of this name the machine's process makes until the first of them that says `which`.
fn count_to(trace: &str, call: &str, which: &str) -> usize {
    let lines = || trace.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let (process, _) = lines().find(|(_, line)| line.contains("\"isopod-vmm\"")).expect("it takes its name");
    let begins = format!("{call}(");
    let mut own = lines().filter(|(by, line)| *by == process && line.trim_start().starts_with(&begins));
    1 + own
        .position(|(_, line)| line.contains(which))
        .unwrap_or_else(|| panic!("no {call} {which} in {trace}"))
}

#[test]
fn without_control_groups_a_machine_starts_only_when_told_to_go_without() {
    let host = Host::new();
    let hidden = |flags: &[&str]| {
        let script = "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" \"$@\"";
        let args = ["--mount", "sh", "-c", script];
        beneath("unshare", &args, &command(&host, flags)).spawn().unwrap()
    };
    let refused = finish(hidden(&[]), Vec::new()).expect(125);
    assert!(refused.stderr.contains("isopod.jail=no-cgroup"), "{}", refused.stderr);
    let mut run = hidden(&["--security-opt", "isopod.jail=no-cgroup"]);
    host.machine_pid();
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(wait(&mut run, SOON), Some(Some(143)));
    host.assert_clean();
}

#[test]
fn a_layer_can_be_left_out_of_every_command() {
    let host = Host::new();
    let layout = Layout::new("small", vec![Layer::gzip(&Tar::of(vec![file("a", "b")]))]);
    let layout = layout.write(&host.scratch("layout"));
    let without = |args: &[&str], layers: &str| {
        let mut plain = host.command(args);
        plain.env("ISOPOD_JAIL", layers);
        let strace =
            ["-f", "-o", "/dev/null", "-e", "trace=pivot_root", "-e", "inject=pivot_root:error=EPERM"];
        finish(beneath("strace", &strace, &plain).spawn().unwrap(), Vec::new())
    };
    let load = ["load", "-q", "-i", layout.to_str().unwrap()];
    let refused = without(&load, "").expect(1);
    assert!(refused.stderr.contains("ISOPOD_JAIL=no-mount"), "{}", refused.stderr);
    without(&load, "no-mount").expect(0);
    assert!(without(&["doctor"], "").text().contains("mount: "));
    assert!(without(&load, "no-such").expect(125).stderr.contains("no-mount"));
}

#[test]
fn a_name_that_is_no_layers_is_refused_with_those_there_are() {
    let host = Host::new();
    let run = command(&host, &["--security-opt", "isopod.jail=no-such"]).spawn().unwrap();
    let run = finish(run, Vec::new()).expect(125);
    assert!(run.stderr.contains("no-landlock") && run.stderr.contains("no-seccomp"), "{}", run.stderr);
}

/// Somebody without root, who may open /dev/kvm.
#[test]
fn without_root_all_layers_hold_but_the_control_group() {
    const UID: u32 = 65_432;
    let host = Host::without_templates();
    let program = host.scratch("isopod");
    fs::copy(env!("CARGO_BIN_EXE_isopod"), &program).unwrap();
    let kernel = kernel(host.root(), Deed::Halt);
    fs::create_dir_all(host.data_root()).unwrap();
    for path in [host.root(), &host.data_root(), &program, &kernel] {
        chown(path, Some(UID), Some(UID)).unwrap();
    }
    fs::set_permissions(host.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let device = host.scratch("kvm");
    // A device of the same number that anybody may open, in a mount namespace of their own.
    let script = "mknod -m 666 $1 c 10 232; mount --bind $1 /dev/kvm; shift; exec \"$@\"";
    let ids = [format!("--reuid={UID}"), format!("--regid={UID}")];
    let (device, program) = (device.to_str().unwrap(), program.to_str().unwrap());
    let unprivileged = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", device, "setpriv"]).args(&ids);
        command.args(["--clear-groups", "--inh-caps=-all", program]).args(args);
        command
            .env("ISOPOD_DATA_ROOT", host.data_root())
            .env("ISOPOD_RUN_ROOT", host.data_root().join("run"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let doctor = finish(unprivileged(&["doctor"]), Vec::new());
    let line = doctor.text().lines().find(|line| line.contains(" jail ")).unwrap().to_owned();
    assert!(line.starts_with("note") && line.contains("not cgroup"), "{line}");
    let run = ["run", "--rm", "--name", NAME, "--no-template", "--kernel", kernel.to_str().unwrap(), "demo"];
    let mut run = unprivileged(&run);
    let pid = host.machine_pid();
    let within = Instant::now() + SOON;
    while status(pid, "Seccomp") != "2" && Instant::now() < within {}
    let told = finish(unprivileged(&["doctor", "--jail", NAME, "--format", "json"]), Vec::new());
    let told: Vec<Value> = serde_json::from_slice(&told.stdout).expect("a list");
    for layer in &told {
        let name = layer["name"].as_str().unwrap();
        let expected = match name {
            // What is opened by path shows where it was.
            "landlock" | "untraceable" | "descriptors" => None,
            "cgroup" => Some(false),
            _ => Some(true),
        };
        assert_eq!(layer["holds"].as_bool(), expected, "{layer}");
    }
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(wait(&mut run, SOON), Some(Some(143)));
}

#[test]
fn a_copy_of_a_machine_without_its_jail_is_in_one() {
    let host = Host::new();
    let open = ["--security-opt", "isopod.jail=no-net"];
    let first = [&["run", "--rm", "--name", "first"], &open[..], &["demo", "sleep", "1000"]].concat();
    let first = host.command(&first).spawn().unwrap();
    // Each of its own: a boot, a snapshot and a copy take seconds where KVM emulates.
    let soon = || Instant::now() + DEADLINE;
    let within = soon();
    while host.isopod(&["snapshot", "create", "first", "taken"]).code != Some(0) {
        assert!(Instant::now() < within, "no snapshot could be taken");
        sleep(Duration::from_millis(200));
    }
    let copy = ["run", "--rm", "--name", NAME, "--from-snapshot", "taken"];
    let copy = host.command(&copy).spawn().unwrap();
    let has = |name: &str, layer: &str| {
        let told = host.isopod(&["inspect", "--format", "{{.Isolation}}", name]);
        told.text().split_whitespace().any(|word| word == layer)
    };
    let within = soon();
    while !has(NAME, "net") {
        assert!(Instant::now() < within, "it is not in a network namespace of its own");
    }
    // It is still there, and lacks what it was to lack.
    assert!(has("first", "pid") && !has("first", "net"));
    for child in [first, copy] {
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        finish(child, Vec::new());
    }
    host.assert_clean();
}

/// Each copy of several is another process's, which has to be told.
#[test]
fn what_is_left_out_for_copies_is_left_out_of_each() {
    let host = Host::new();
    let first = ["run", "--rm", "--name", "first", "demo", "sleep", "1000"];
    let first = host.command(&first).spawn().unwrap();
    let isolation = |name: &str| host.isopod(&["inspect", "--format", "{{.Isolation}}", name]).stdout;
    let has = |name: &str, layer: &str| {
        String::from_utf8_lossy(&isolation(name)).split_whitespace().any(|word| word == layer)
    };
    let until = |holds: &dyn Fn() -> bool| {
        let within = Instant::now() + DEADLINE;
        while !holds() {
            assert!(Instant::now() < within);
        }
    };
    until(&|| host.isopod(&["inspect", "--format", "{{.State.Running}}", "first"]).text().contains("true"));
    let fork = ["--unjailed", "no-net", "fork", "first", "--rm", "--name", "one", "--name", "two"];
    let fork = host.command(&fork).spawn().unwrap();
    for copy in ["one", "two"] {
        // The last layer but one.
        until(&|| has(copy, "no-new-privileges"));
        assert!(!has(copy, "net"), "{copy}");
    }
    assert!(has("first", "net"));
    for container in ["first", "one", "two"] {
        host.isopod(&["rm", "-f", container]);
    }
    drop((finish(first, Vec::new()), finish(fork, Vec::new())));
    host.assert_clean();
}
