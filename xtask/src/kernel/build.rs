// SPDX-License-Identifier: Apache-2.0
//! The steps done by other programs: patch, make, strip. Each failure ends with what the program itself said.

use super::manifest::Manifest;
use crate::say::Progress;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// A build of this configuration makes about so many objects; only said as a guide.
const OBJECTS: usize = 1200;

/// Runs a program quietly; what it said is the error if it fails.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{name} failed ({}): {}", output.status, tail(&String::from_utf8_lossy(&said)));
    }
    Ok(())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n    ")
}

/// A program of the kernel's build: at low priority, without what an outer `make` left in the environment, and with
/// everything fixed that would make two builds of the same inputs differ.
pub(super) fn make_command(tree: &Path, program: &str) -> Command {
    let mut command = Command::new("nice");
    command.arg(program).current_dir(tree).stdin(Stdio::null());
    for outer in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CROSS_COMPILE", "KCONFIG_CONFIG", "KBUILD_OUTPUT"] {
        command.env_remove(outer);
    }
    command.env("ARCH", "x86_64").env("LC_ALL", "C");
    command.env("KBUILD_BUILD_USER", "isopod").env("KBUILD_BUILD_HOST", "isopod");
    command.env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970").env("KBUILD_BUILD_VERSION", "1");
    command
}

pub(super) fn patch(tree: &Path, manifest: &Manifest) -> Result<()> {
    let patches = manifest.patches()?;
    let progress = Progress::begin("kernel: patching");
    for patch in &patches {
        let file = tree.join(".patch");
        fs::write(&file, patch.contents).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = Command::new("patch");
        command.args(["-p1", "--batch", "--forward", "--fuzz=2", "-i"]).arg(&file).current_dir(tree);
        run(&mut command).with_context(|| format!("{} does not apply to this kernel", patch.name))?;
    }
    progress.done(&format!("{} patches", patches.len()));
    Ok(())
}

/// Compiles `vmlinux`, with everything the build says in `log`.
pub(super) fn make(tree: &Path, log: &Path) -> Result<()> {
    let jobs = thread::available_parallelism().map_or(2, usize::from);
    let mut progress = Progress::begin(format!("kernel: compiling with {jobs} jobs"));
    let mut writer = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    let errors = writer.try_clone().context("cannot share the log")?;
    let mut command = make_command(tree, "make");
    command.arg(format!("-j{jobs}")).arg("vmlinux").stdout(Stdio::piped()).stderr(errors);
    let mut child = command.spawn().context("cannot start make")?;
    let mut objects = 0;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            writeln!(writer, "{line}").with_context(|| format!("cannot write {}", log.display()))?;
            if ["  CC ", "  AS ", "  AR ", "  LD "].iter().any(|step| line.starts_with(step)) {
                objects += 1;
                progress.update(&format!("{objects} of about {OBJECTS} objects"));
            }
        }
    }
    let status = child.wait().context("cannot wait for make")?;
    if !status.success() {
        let said = fs::read_to_string(log).unwrap_or_default();
        bail!("make failed ({status}); all of it is in {}:\n    {}", log.display(), tail(&said));
    }
    progress.done(&format!("{objects} objects"));
    Ok(())
}

/// Puts what is kept into one folder: the kernel with its symbols (an instruction pointer can be named) but without
/// debug information, unless that is what was asked for.
pub(super) fn gather(tree: &Path, work: &Path, debug: bool) -> Result<PathBuf> {
    let made = work.join("made");
    fs::create_dir(&made).with_context(|| format!("cannot make {}", made.display()))?;
    for (from, to) in [("vmlinux", "vmlinux"), ("System.map", "System.map"), (".config", "config")] {
        fs::copy(tree.join(from), made.join(to)).with_context(|| format!("the build left no {from}"))?;
    }
    if !debug {
        run(Command::new("strip").arg("--strip-debug").arg(made.join("vmlinux")))?;
    }
    Ok(made)
}
