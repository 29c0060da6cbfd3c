// SPDX-License-Identifier: Apache-2.0
//! What the tests stand on: a host of their own, runs with a deadline, and the proof that nothing is left.

pub(crate) mod attacker;
pub(crate) mod captive;
pub(crate) mod chaos;
pub(crate) mod debian;
pub(crate) mod disk;
pub(crate) mod evil;
pub(crate) mod layout;
pub(crate) mod nasty;
pub(crate) mod points;
pub(crate) mod pty;
pub(crate) mod registry;
pub(crate) mod store;

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write, stderr};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::str;
use std::sync::{OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// No run of a test takes this long unless something hangs: a guest that looks at every file of a distribution takes
/// minutes where KVM emulates.
pub(crate) const DEADLINE: Duration = Duration::from_secs(900);

/// What no command that takes images in may have resident, whatever it takes in.
pub(crate) const MEMORY_KIB: u64 = 128 << 10;

/// A data root and a run root of the test's own.
#[derive(Debug)]
pub(crate) struct Host {
    root: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.stdout).expect("text was expected")
    }

    /// Ends the test unless the run ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert!(!self.stderr.contains("SIGSYS"), "a thread's list lacks a call: {}", self.stderr);
        assert_eq!(
            self.code,
            Some(code),
            "stdout: {}\nstderr: {}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }
}

impl Host {
    /// Its machines start from the templates that all tests share.
    pub(crate) fn new() -> Self {
        let host = Self::without_templates();
        fs::create_dir_all(host.data_root()).expect("our own");
        symlink(shared_templates(), host.data_root().join("templates")).expect("our own");
        host
    }

    /// It has to make its templates itself.
    pub(crate) fn without_templates() -> Self {
        Self { root: TempDir::with_prefix("isopod-test-").expect("a folder of our own") }
    }

    pub(crate) fn data_root(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// A place for the test's own files.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A file of the test's own.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.scratch(name);
        fs::write(&path, bytes).expect("a file of our own");
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isopod"));
        command
            .args(args)
            .env("ISOPOD_DATA_ROOT", self.data_root())
            .env("ISOPOD_RUN_ROOT", self.root.path().join("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn isopod(&self, args: &[&str]) -> Run {
        finish(self.command(args).spawn().expect("the binary starts"), Vec::new())
    }

    /// `isopod run --rm …`, with `input` as its standard input if there is any (then with `-i`).
    pub(crate) fn run(&self, args: &[&str], input: Vec<u8>) -> Run {
        let mut all = vec!["run", "--rm"];
        let mut command = if input.is_empty() {
            all.extend(args);
            self.command(&all)
        } else {
            all.push("-i");
            all.extend(args);
            let mut command = self.command(&all);
            command.stdin(Stdio::piped());
            command
        };
        finish(command.spawn().expect("the binary starts"), input)
    }

    /// A shell script in the demo image, as root.
    pub(crate) fn sh(&self, flags: &[&str], script: &str) -> Run {
        let args = [&["--entrypoint", "", "-u", "0"], flags, &["demo", "sh", "-c", script]].concat();
        self.run(&args, Vec::new())
    }

    /// Nothing of this host's runs any more, no container is recorded, no temporary file is there.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let within = Instant::now() + Duration::from_secs(1);
        let mut running = self.processes();
        // One that another test is about to start has our files open for a moment, too.
        while !running.is_empty() && Instant::now() < within {
            thread::sleep(Duration::from_millis(20));
            running = self.processes();
        }
        assert_eq!(running, Vec::<String>::new(), "processes are left");
        assert_eq!(self.isopod(&["ps", "-a", "-q"]).expect(0).text(), "", "a container is left");
        let left: Vec<_> = files(&self.data_root().join("image/tmp"));
        assert_eq!(left, Vec::<PathBuf>::new(), "temporary files are left");
    }

    /// Processes that were started for this host: those of its data root, and machines (which have no environment and
    /// know no path of it, but hold its files open).
    pub(crate) fn processes(&self) -> Vec<String> {
        let root = self.root.path().to_string_lossy().into_owned();
        let own = process::id().to_string();
        let number = |path: PathBuf| fs::metadata(path).map(|at| (at.dev(), at.ino())).ok();
        let disks = ["boot/disks", "image/disks/sha256"].map(|folder| files(&self.data_root().join(folder)));
        let disks: HashSet<_> = disks.into_iter().flatten().filter_map(number).collect();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if pid == own || !pid.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            let has = |file: &str| {
                fs::read(entry.path().join(file))
                    .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&root))
            };
            let holds = || {
                files(&entry.path().join("fd")).into_iter().any(|fd| {
                    fs::read_link(&fd).is_ok_and(|to| to.to_string_lossy().starts_with(&root))
                        || number(fd).is_some_and(|number| disks.contains(&number))
                })
            };
            if has("environ") || has("cmdline") || holds() {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                found.push(format!("{pid} {}", name.trim()));
            }
        }
        found
    }

    /// The pid of the one machine that runs on this host, once there is one.
    pub(crate) fn machine_pid(&self) -> u32 {
        let within = Instant::now() + Duration::from_secs(30);
        while Instant::now() < within {
            let found = self.processes();
            if let Some(line) = found.iter().find(|line| line.ends_with("isopod-vmm")) {
                return line.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("no machine came up");
    }
}

/// Where all tests have their templates: boot is paid once for a whole run, and not at all for the next one of the same
/// build. Those of other builds are removed.
fn shared_templates() -> &'static Path {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        let templates = Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates");
        fs::create_dir_all(&templates).expect("the target folder is writable");
        let host = Host::without_templates();
        fs::create_dir_all(host.data_root()).expect("our own");
        symlink(&templates, host.data_root().join("templates")).expect("our own");
        host.isopod(&["template", "rm", "--unusable"]).expect(0);
        host.isopod(&["template", "build"]).expect(0);
        templates
    })
}

/// Everything directly in a folder; nothing if it is not there.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|entries| entries.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}

/// A field of a process's, or a thread's, status; empty if there is no such process.
pub(crate) fn status(process: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// The threads of a process, by name.
pub(crate) fn threads(process: u32) -> Vec<(String, u32)> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten();
    let number = |name: OsString| name.to_str().and_then(|n| n.parse().ok()).expect("a number");
    tasks.map(|task| number(task.file_name())).map(|thread| (status(thread, "Name"), thread)).collect()
}

/// How far a guest's clock may be off.
pub(crate) const SKEW: Duration = Duration::from_millis(50);

/// The host's clock, as a guest tells its own.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("this is not 1970")
}

/// Says something that a passing test has found out.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// How often to do what is done `usual` times in a usual run: a thousand take about twenty minutes.
pub(crate) fn times(usual: u64) -> u64 {
    env::var("ISOPOD_TEST_TIMES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Feeds `input`, takes both outputs, and waits; kills what does not end by the deadline.
#[track_caller]
pub(crate) fn finish(mut child: Child, input: Vec<u8>) -> Run {
    if let Some(mut stdin) = child.stdin.take() {
        // A reader that goes away early is the test's to notice by other means.
        thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let (out, err) = (collect(out), collect(err));
    let code = wait(&mut child, DEADLINE);
    let stdout = out.recv().expect("the reader lives");
    let stderr = String::from_utf8_lossy(&err.recv().expect("the reader lives")).into_owned();
    assert!(code.is_some(), "no end within {DEADLINE:?}; stderr: {stderr}");
    Run { code: code.flatten(), stdout, stderr }
}

/// Runs to the end; gives the most memory that was seen resident, in KiB.
///
/// Looking every millisecond can miss the end of a short life, so the kernel also refuses memory of the process's own
/// beyond the limit, which ends it in another way than a refused image does.
pub(crate) fn watched(plain: &Command) -> (Run, u64) {
    let limit = format!("--data={}", MEMORY_KIB << 10);
    let child = beneath("prlimit", &[&limit], plain).spawn().expect("util-linux is there");
    let peak = peak_of(child.id());
    let run = finish(child, Vec::new());
    (run, peak.join().expect("the watcher ends"))
}

/// Watches a process until it ends; gives the most memory that was seen resident, in KiB.
pub(crate) fn peak_of(pid: u32) -> JoinHandle<u64> {
    let status = format!("/proc/{pid}/status");
    let mark = move || -> Option<u64> {
        let text = fs::read_to_string(&status).ok()?;
        text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
    };
    let first = mark().unwrap_or(0);
    thread::spawn(move || {
        let mut peak = first;
        // A process that has ended has no memory.
        while let Some(seen) = mark() {
            peak = peak.max(seen);
            thread::sleep(Duration::from_millis(1));
        }
        peak
    })
}

/// The same command, run by another program.
pub(crate) fn beneath(program: &str, args: &[&str], plain: &Command) -> Command {
    let mut command = Command::new(program);
    command.args(args).arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The exit code by the deadline (`Some(None)`: a signal); after it the child is killed.
pub(crate) fn wait(child: &mut Child, deadline: Duration) -> Option<Option<i32>> {
    let within = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return Some(status.code());
        }
        if Instant::now() > within {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (to, result) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = to.send(bytes);
    });
    result
}
