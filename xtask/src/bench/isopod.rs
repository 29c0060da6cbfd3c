// SPDX-License-Identifier: Apache-2.0
//! The product under measurement: its release build, with a data root of its own, and what its `--timings` say.

use crate::say::Progress;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// What a timer tick of the guest costs, in emulated instructions: the mean of a start traced instruction by instruction.
const PER_TICK: f64 = 2580.0;

/// `true` in the demo image, with nothing before it.
pub(super) const TRUE: &[&str] = &["--entrypoint", "", "demo", "true"];

#[derive(Debug)]
pub(super) struct Isopod {
    binary: PathBuf,
    folder: TempDir,
}

impl Isopod {
    /// The release build, made if need be.
    pub(super) fn build() -> Result<Self> {
        let root = crate::workspace();
        let status = Command::new(env!("CARGO"))
            .args(["build", "--release", "--quiet", "--package", "isopod", "--message-format=short"])
            .current_dir(&root)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "the release build failed");
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let folder = tempfile::tempdir().context("cannot make a folder for the runs")?;
        Ok(Self { binary: target.join("release/isopod"), folder })
    }

    pub(super) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The bench's own, gone with it.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The image is loaded and the template made by a run that is not counted; nor is the first from it.
    pub(super) fn make_template(&self) -> Result<()> {
        let progress = Progress::begin("bench: making the template");
        self.run(&[TRUE])?;
        self.run(&[TRUE])?;
        progress.done("");
        Ok(())
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        self.with_roots(&mut command);
        command
    }

    pub(super) fn with_roots(&self, command: &mut Command) {
        command
            .env("ISOPOD_DATA_ROOT", self.folder().join("data"))
            .env("ISOPOD_RUN_ROOT", self.folder().join("run"))
            .stdin(Stdio::null());
    }

    /// `isopod run --rm --timings=json`, which is to end with code 0.
    pub(super) fn run(&self, options: &[&[&str]]) -> Result<Run> {
        self.run_to(0, options)
    }

    pub(super) fn run_to(&self, code: i32, options: &[&[&str]]) -> Result<Run> {
        self.report(self.command(), code, options)
    }

    /// A command that starts its processes without these layers of the jail (`no-LAYER,…`, or none), said where it is heard
    /// before the command line is parsed.
    pub(super) fn command_without(&self, layers: &str) -> Command {
        let mut command = self.command();
        command.env("ISOPOD_JAIL", layers);
        command
    }

    pub(super) fn run_without(&self, layers: &str, options: &[&[&str]]) -> Result<Run> {
        self.report(self.command_without(layers), 0, options)
    }

    fn report(&self, mut command: Command, code: i32, options: &[&[&str]]) -> Result<Run> {
        command.args(["run", "--rm", "--timings=json"]).args(options.concat());
        let timed = Timed::of(&mut command)?;
        ensure!(timed.status.code() == Some(code), "isopod run failed: {}", timed.stderr);
        let json =
            timed.stderr.lines().rfind(|line| line.starts_with('{')).context("there are no timings")?;
        let report = serde_json::from_str(json).context("the timings are not as expected")?;
        Ok(Run { wall: timed.wall, report })
    }

    /// Whether any container is recorded.
    pub(super) fn containers(&self) -> Result<String> {
        let output = self.command().args(["ps", "-a", "-q"]).output().context("cannot run isopod ps")?;
        ensure!(output.status.success(), "isopod ps failed");
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// A command, and the milliseconds from before it was spawned until it was waited for.
pub(super) struct Timed {
    pub(super) wall: f64,
    pub(super) status: ExitStatus,
    pub(super) stderr: String,
}

impl Timed {
    pub(super) fn of(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let status = child.wait();
        let wall = began.elapsed().as_secs_f64() * 1e3;
        let mut stderr = String::new();
        // What does not fit a pipe would have hung; a few lines do.
        child
            .stderr
            .take()
            .context("no stderr")?
            .read_to_string(&mut stderr)
            .context("cannot read stderr")?;
        Ok(Self { wall, status: status.context("cannot wait")?, stderr })
    }
}

#[derive(Debug)]
pub(super) struct Run {
    /// Milliseconds from before the spawn until it was reaped.
    pub(super) wall: f64,
    pub(super) report: Report,
}

impl Run {
    /// What the host spent around the guest: until it first ran, and from the process's exit until all is reaped. The
    /// spawn, which no mark sees, is in the second.
    pub(super) fn host_side(&self) -> Option<f64> {
        Some(self.report.at("first KVM_RUN")? + self.wall - self.report.at("process exited")?)
    }
}

/// What `isopod run --timings=json` says.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    pub(super) timings: Vec<Row>,
    pub(super) at_hello: Option<Counters>,
    pub(super) at_exit: Option<Counters>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) at_ms: f64,
    pub(super) took_ms: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Counters {
    pub(super) emulated_instructions: f64,
    interrupts: f64,
    pub(super) exits: f64,
    pub(super) image_requests: f64,
}

impl Counters {
    /// Guest-kernel instructions but for ticks, of which there are as many as time passes.
    pub(super) fn without_ticks(&self) -> f64 {
        self.emulated_instructions - PER_TICK * self.interrupts
    }
}

impl Report {
    pub(super) fn at(&self, what: &str) -> Option<f64> {
        self.timings.iter().find(|row| row.what == what).map(|row| row.at_ms)
    }

    pub(super) fn between(&self, from: &str, to: &str) -> Option<f64> {
        Some(self.at(to)? - self.at(from)?)
    }
}

/// The machine's process, which is the only child of the engine's.
pub(super) fn machine_of(engine: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{engine}/task/{engine}/children"))
        .context("no children to be seen")?;
    let machine = children.split_whitespace().next().context("there is no machine")?;
    machine.parse().context("a pid is a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_side_is_what_is_before_and_after_the_guest() {
        let json = r#"{"timings":[{"what":"first KVM_RUN","at_ms":5.0,"took_ms":5.0},
            {"what":"process exited","at_ms":105.0,"took_ms":100.0}],"at_hello":null,"at_exit":null}"#;
        let mut run = Run { wall: 108.0, report: serde_json::from_str(json).unwrap() };
        assert_eq!(run.host_side(), Some(8.0));
        run.report.timings.pop();
        assert_eq!(run.host_side(), None);
    }

    #[test]
    fn ticks_are_taken_out_of_the_count() {
        let counters =
            Counters { emulated_instructions: 30_000.0, interrupts: 10.0, exits: 0.0, image_requests: 0.0 };
        assert_eq!(counters.without_ticks(), 4200.0);
    }
}
