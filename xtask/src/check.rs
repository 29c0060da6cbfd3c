// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask check`: what CI checks before it tests, in the same order. Every step runs, so that one call tells
//! everything there is to mend.

mod attacks;
mod code;
mod sizes;
mod sources;
mod unsafety;
mod walls;

use crate::{deny, say, workspace};
use anyhow::{Context, Result, bail};
use sources::Source;
use std::env;
use std::fs;
use std::process::Command;
use std::time::Instant;

pub(crate) fn run() -> Result<()> {
    let sources = sources::find(&workspace())?;
    let steps: [(&str, &dyn Fn() -> Result<()>); 8] = [
        ("format (cargo fmt --check)", &format),
        ("walls (who may use whom, who may be unsafe)", &|| findings(walls::check(&workspace(), &sources)?)),
        ("sizes and heads of files", &|| findings(sizes::check(&sources))),
        ("unsafe code, room by room", &|| findings(unsafety::check(&sources))),
        ("attacks and their tests", &|| findings(attacks::check(&table()?, &sources))),
        ("dependencies (cargo deny)", &deny::check),
        ("lints (cargo clippy)", &lints),
        ("documentation (cargo doc)", &|| cargo(&["doc", "--workspace", "--no-deps", "--quiet"])),
    ];
    let mut failed = Vec::new();
    for (name, step) in steps {
        say::line(format_args!("check: {name}"));
        let began = Instant::now();
        let result = step();
        let verdict = if result.is_ok() { "ok" } else { "failed" };
        if let Err(error) = result {
            say::error(&error);
            failed.push(name);
        }
        say::line(format_args!("check: {name}: {verdict} ({:.1} s)", began.elapsed().as_secs_f32()));
    }
    if !failed.is_empty() {
        bail!("{} of {} checks failed: {}", failed.len(), steps.len(), failed.join(", "));
    }
    Ok(())
}

/// The manifest of a test's own kernel, which has neither a standard library nor tests.
const KERNEL: &str = "tests/attacker/Cargo.toml";

fn format() -> Result<()> {
    let each = |manifest: &&str| cargo(&["fmt", "--manifest-path", manifest, "--all", "--", "--check"]);
    deny::WORKSPACES.iter().try_for_each(each)
}

fn lints() -> Result<()> {
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"])?;
    let apart = ["--target-dir", "target/attacker", "--quiet", "--", "--deny", "warnings"];
    cargo(&[&["clippy", "--manifest-path", KERNEL], &apart[..]].concat())
}

fn table() -> Result<String> {
    fs::read_to_string(workspace().join(attacks::TABLE))
        .with_context(|| format!("cannot read {}", attacks::TABLE))
}

fn findings(found: Vec<String>) -> Result<()> {
    if !found.is_empty() {
        bail!("{} findings\n  {}", found.len(), found.join("\n  "));
    }
    Ok(())
}

/// Runs cargo in the workspace with its output as it is.
fn cargo(arguments: &[&str]) -> Result<()> {
    let status = command(arguments).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo {} failed ({status})", arguments.join(" "));
    }
    Ok(())
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace()).env("RUSTDOCFLAGS", "--deny warnings");
    command
}

/// Names a file (and a line of it) for a finding.
fn at(source: &Source, line: usize) -> String {
    format!("{}:{line}", source.path.display())
}
