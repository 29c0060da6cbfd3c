// SPDX-License-Identifier: Apache-2.0
//! The guest of `tests/attacker`: built once, told what to do, started, listened to, and judged by what it does to its host.

#[path = "../attacker/src/numbers.rs"]
mod numbers;

use super::layout::tool;
use super::{DEADLINE, Host, Run, files, finish, tell};
use numbers::MARK;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use numbers::{Deed, Device, Part};

/// The guest's memory in MiB, which its kernel takes for granted.
const MEMORY_MIB: u64 = 64;
/// What a machine may have resident besides, at most.
const BESIDES_MIB: u64 = 64;
/// And how much more of it, the guest's memory left out, at the end than after a twentieth of the attack.
const GROWTH_KIB: u64 = 1 << 10;
/// Where the kernel's image begins in the guest's memory.
const IMAGE_AT: u64 = 16 << 20;
/// The image is a file, of which this is the end of the path.
const IMAGE: &str = "/attacker";
/// Of one processor, once there is nothing to do.
const IDLE_PERCENT: f64 = 5.0;
/// A guest that attacks tells how far it is every few seconds.
const SILENCE: Duration = Duration::from_secs(60);
pub(crate) const STOPS_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders {
    pub(crate) deed: Deed,
    /// A device's number, or the part that an agent plays.
    pub(crate) device: u64,
    pub(crate) seed: u64,
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Orders {
    pub(crate) fn new(deed: Deed, device: Device) -> Self {
        let (seed, first) = (asked_for("ISOPOD_TEST_SEED", 1), asked_for("ISOPOD_TEST_FIRST", 0));
        Self { deed, device: device as u64, seed, first, count: 0 }
    }

    /// As the agent, with its device's connection.
    pub(crate) fn agent(part: Part) -> Self {
        Self { device: part as u64, ..Self::new(Deed::Agent, Device::Vsock) }
    }
}

/// The same each time, unless another one is asked for.
fn asked_for(variable: &str, usual: u64) -> u64 {
    env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// A kernel that follows these orders, in the host's folder.
pub(crate) fn kernel(host: &Host, orders: &Orders) -> PathBuf {
    let mut image = fs::read(built()).expect("it was built");
    let mut at =
        image.windows(MARK.len()).position(|bytes| bytes == MARK).expect("it has a mark") + MARK.len();
    let Orders { deed, device, seed, first, count } = *orders;
    for word in [deed as u64, device, seed, first, count] {
        image[at..at + 8].copy_from_slice(&word.to_le_bytes());
        at += 8;
    }
    host.file("attacker", &image)
}

fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("attacker");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacker/Cargo.toml");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--release", "--manifest-path"]).arg(manifest);
        // Flags that were meant for the host's programs would be wrong for a kernel.
        tool(
            cargo
                .env("CARGO_TARGET_DIR", &target)
                .env_remove("RUSTFLAGS")
                .env_remove("CARGO_ENCODED_RUSTFLAGS"),
        );
        target.join("release/attacker")
    })
}

/// `isopod run` of a kernel with these orders, and the file its console goes to.
pub(crate) fn command(host: &Host, orders: &Orders, flags: &[&str]) -> (Command, PathBuf) {
    let kernel = kernel(host, orders);
    let console = host.scratch("console");
    let (shown, memory) = (format!("--console={}", console.display()), format!("{MEMORY_MIB}m"));
    let kernel = kernel.to_str().expect("a plain path");
    let machine = ["run", "--rm", "--no-template", "-m", &memory, "--kernel", kernel, &shown];
    let mut command = host.command(&[&machine, flags, &["demo"]].concat());
    command.env("ISOPOD_START_TIMEOUT", "7200");
    (command, console)
}

/// An attack that is under way.
#[derive(Debug)]
pub(crate) struct Attack<'h> {
    host: &'h Host,
    orders: Orders,
    child: Option<Child>,
    machine: u32,
    console: PathBuf,
    began: Instant,
}

/// What it did to the host.
#[derive(Debug)]
pub(crate) struct Traces {
    pub(crate) console: String,
    /// Pieces of files that lay in the guest's memory at the end.
    pub(crate) mapped: usize,
    pub(crate) run: Run,
}

impl Traces {
    /// The number that the guest told behind these words.
    #[track_caller]
    pub(crate) fn told(&self, words: &str) -> u64 {
        let behind = |line: &str| line.split_once(words)?.1.split_whitespace().next()?.parse().ok();
        self.console
            .lines()
            .find_map(behind)
            .unwrap_or_else(|| panic!("no word of {words}: {}", self.console))
    }
}

impl<'h> Attack<'h> {
    pub(crate) fn start(host: &'h Host, orders: Orders) -> Self {
        let (command, console) = command(host, &orders, &[]);
        Self::spawn(host, orders, (command, console))
    }

    /// With more input than anybody has room for.
    pub(crate) fn start_with_input(host: &'h Host, orders: Orders) -> Self {
        let (mut command, console) = command(host, &orders, &["-i"]);
        command.stdin(Stdio::piped());
        let mut attack = Self::spawn(host, orders, (command, console));
        let stdin = attack.child.as_mut().and_then(|child| child.stdin.take());
        let mut stdin = stdin.expect("it is piped");
        thread::spawn(move || drop(stdin.write_all(&vec![b'i'; 4 << 20])));
        attack
    }

    fn spawn(host: &'h Host, orders: Orders, (mut command, console): (Command, PathBuf)) -> Self {
        let began = Instant::now();
        let child = command.spawn().expect("the binary starts");
        let machine = host.machine_pid();
        Self { host, orders, child: Some(child), machine, console, began }
    }

    /// What the guest has said so far.
    fn said(&self) -> String {
        fs::read(&self.console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until the guest has said a line that begins so; not for one that says nothing any more.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, line: &str, within: Duration) {
        let deadline = Instant::now() + within;
        let (mut len, mut heard) = (0, Instant::now());
        loop {
            let said = self.said();
            if said.lines().any(|said| said.starts_with(line)) {
                return;
            }
            if said.len() > len {
                (len, heard) = (said.len(), Instant::now());
            }
            assert!(heard.elapsed() < SILENCE, "nothing was said for {SILENCE:?}; {}", self.last_words());
            if self.child.as_mut().is_some_and(|child| child.try_wait().expect("our child").is_some()) {
                let run = self.child.take().map(|child| finish(child, Vec::new()));
                panic!("the machine is gone: {run:?}; {}", self.last_words());
            }
            assert!(
                Instant::now() < deadline,
                "`{line}` was not said within {within:?}; {}",
                self.last_words()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Tells it to end, as often as even one is told whose process heeds no signal; gives how long that took.
    pub(crate) fn stop(&mut self) -> (Run, Duration) {
        let child = self.child.take().expect("it is stopped once");
        let asked = Instant::now();
        for _ in 0..if matches!(self.orders.deed, Deed::Agent) { 3 } else { 1 } {
            kill_process(Pid::from_child(&child), Signal::TERM).expect("our child");
            // Two of the same that wait to be taken are one.
            thread::sleep(Duration::from_millis(50));
        }
        (finish(child, Vec::new()), asked.elapsed())
    }

    /// To find the place again.
    fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        format!("{:?}; the guest said last: {:#?}", self.orders, &lines[lines.len().saturating_sub(8)..])
    }

    /// Waits for the attack's end, and judges the machine: it lives, is quiet, has grown no more than it may, finds nothing
    /// odd, and ends when it is told to.
    #[track_caller]
    pub(crate) fn judge(mut self) -> Traces {
        let limit = DEADLINE + Duration::from_millis(self.orders.count * 10);
        let early = (self.orders.first + self.orders.count / 20).next_multiple_of(1000);
        // Not what it has before its guest runs, while it is put together.
        let line = if self.orders.count > 20_000 { format!("at {early}") } else { "begins".to_owned() };
        self.wait_for(&line, limit);
        let before = self.own_kib();
        self.wait_for("halt", limit);
        let took = self.began.elapsed();
        let (after, peak) = (self.own_kib(), self.kib("VmHWM:"));
        let (mapped, busiest) = (self.mapped(), self.busiest());
        let last = self.last_words();
        let console = self.said();
        let (run, stopped) = self.stop();
        let done = console.lines().find(|line| line.starts_with("done")).unwrap_or("nothing was done");
        tell(&format!(
            "{:?} {}: {done}; {:.1} s, peak {peak} KiB, grown {} KiB, busiest thread {busiest:?}, stopped in {stopped:?}",
            self.orders.deed,
            self.orders.device,
            took.as_secs_f32(),
            after.saturating_sub(before),
        ));
        assert!(console.contains("\ndone") || console.starts_with("done"), "{last}");
        let odd: Vec<_> = console.lines().filter(|line| line.starts_with("odd")).take(10).collect();
        assert!(odd.is_empty(), "{:?}: {odd:#?}", self.orders);
        assert!(peak <= (MEMORY_MIB + BESIDES_MIB) << 10, "{peak} KiB were resident; {last}");
        assert!(after <= before + GROWTH_KIB, "from {before} to {after} KiB; {last}");
        assert!(busiest.1 < IDLE_PERCENT, "a thread is busy with nothing: {busiest:?}; {last}");
        assert!(stopped < STOPS_WITHIN, "it took {stopped:?} to stop; {last}");
        assert!(!run.stderr.contains("panic") && !run.stderr.contains("SIGSYS"), "{}", run.stderr);
        self.host.assert_clean();
        Traces { console, mapped, run }
    }

    /// A figure of the machine's, in KiB.
    #[track_caller]
    fn kib(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.machine)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.unwrap_or_else(|| panic!("the machine is gone: {}", self.last_words()))
    }

    /// What is resident of its own memory, that is, not of the guest's.
    fn own_kib(&self) -> u64 {
        let maps = fs::read_to_string(format!("/proc/{}/smaps", self.machine)).unwrap_or_default();
        let guest = guest_memory(&maps);
        let (mut start, mut own) = (0, 0);
        for line in maps.lines() {
            if let Some(kib) = line.strip_prefix("Rss:").filter(|_| !guest.contains(&start)) {
                own += kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
            }
            start = start_of(line).unwrap_or(start);
        }
        own
    }

    /// How many pieces of a share's files lie in the guest's memory.
    fn mapped(&self) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.machine)).unwrap_or_default();
        let guest = guest_memory(&maps);
        let in_guest = |line: &&str| start_of(line).is_some_and(|at| guest.contains(&at));
        // Beside the file's number, which is 0 if there is none.
        let of_file = |line: &&str| line.split_whitespace().nth(4).is_some_and(|number| number != "0");
        maps.lines().filter(in_guest).filter(of_file).filter(|line| !line.ends_with(IMAGE)).count()
    }

    /// How far it says it is.
    fn progress(&self) -> Option<u64> {
        self.said().lines().rev().find_map(|line| line.strip_prefix("at ")?.parse().ok())
    }

    /// Waits until it is further than when this was called: it is not dead, nor is it waiting for something.
    #[track_caller]
    pub(crate) fn goes_on(&mut self) {
        let before = self.progress();
        let deadline = Instant::now() + SILENCE;
        while self.progress() == before {
            let is_over = self.child.as_mut().is_none_or(|child| child.try_wait().expect("ours").is_some());
            assert!(!is_over && Instant::now() < deadline, "it does not go on: {}", self.last_words());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The thread of the machine's or the engine's that used most of a processor within a second, and how many hundredths.
    fn busiest(&self) -> (String, f64) {
        let before = self.ticks();
        thread::sleep(Duration::from_secs(1));
        let used = self.ticks().into_iter().map(|(thread, (name, ticks))| {
            let ticks = ticks - before.get(&thread).map_or(0, |(_, ticks)| *ticks);
            (name, f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) * 100.0 / per_second())
        });
        used.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
    }

    /// What each thread of either has used, in ticks: `utime` and `stime` (proc_pid_stat(5)).
    fn ticks(&self) -> HashMap<PathBuf, (String, u64)> {
        let engine = self.child.as_ref().expect("it was not stopped").id();
        let tasks = [self.machine, engine].map(|process| files(Path::new(&format!("/proc/{process}/task"))));
        let stat = |task: PathBuf| {
            let text = fs::read_to_string(task.join("stat")).ok()?;
            let (name, rest) = text.split_once(") ")?;
            let ticks: Vec<u64> = rest.split(' ').skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
            Some((task, (name.to_owned(), ticks.iter().sum())))
        };
        tasks.into_iter().flatten().filter_map(stat).collect()
    }
}

/// Where the guest's memory is, by what `/proc/PID/maps` or `smaps` says.
fn guest_memory(maps: &str) -> Range<u64> {
    // The first page of the kernel's image is mapped, not copied.
    let image = maps.lines().find(|line| line.ends_with(IMAGE)).and_then(start_of);
    image.map_or(0..0, |at| at - IMAGE_AT..at - IMAGE_AT + (MEMORY_MIB << 20))
}

fn start_of(line: &str) -> Option<u64> {
    u64::from_str_radix(line.split_once('-')?.0, 16).ok()
}

/// A test that fails leaves nothing that runs.
impl Drop for Attack<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn per_second() -> f64 {
    f64::from(u32::try_from(clock_ticks_per_second()).unwrap_or(100))
}
