// SPDX-License-Identifier: Apache-2.0
//! crun and runc, which share the host's kernel with their containers: the same files, the same command.

use super::isopod::Timed;
use crate::say;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    bundle: PathBuf,
}

impl Peer {
    /// Made ready to run `true` in `root`, and run once. One that cannot is left out, and it is said why.
    pub(super) fn ready(name: &'static str, folder: &Path, root: &Path) -> Result<Option<Self>> {
        let version = Command::new(name).arg("--version").stderr(Stdio::null()).output();
        let Ok(version) = version else {
            say::line(format_args!("{name} is missing and left out: apt install {name}"));
            return Ok(None);
        };
        let version = String::from_utf8_lossy(&version.stdout);
        say::line(format_args!("peer: {}", version.lines().next().unwrap_or(name)));
        let peer = Self { name, bundle: folder.join(name) };
        peer.write_bundle(root)?;
        match peer.run() {
            Ok(_) => Ok(Some(peer)),
            Err(error) => {
                say::line(format_args!("{name} cannot run here and is left out: {error:#}"));
                Ok(None)
            }
        }
    }

    /// As `spec` has it: its own default namespaces, capabilities and mounts.
    fn write_bundle(&self, root: &Path) -> Result<()> {
        fs::create_dir_all(&self.bundle).context("cannot make a bundle")?;
        let status = Command::new(self.name).arg("spec").current_dir(&self.bundle).status();
        ensure!(status.is_ok_and(|status| status.success()), "{} spec failed", self.name);
        let place = self.bundle.join("config.json");
        let text = fs::read(&place).context("cannot read a bundle")?;
        let mut spec: Value = serde_json::from_slice(&text).context("a bundle's config is JSON")?;
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["true"]);
        spec["root"]["path"] = json!(root);
        fs::write(&place, spec.to_string()).context("cannot write a bundle")
    }

    /// Milliseconds from before the spawn until it is reaped.
    pub(super) fn run(&self) -> Result<f64> {
        let mut command = Command::new(self.name);
        command.arg("--root").arg(self.bundle.join("state")).args(["run", "--bundle"]).arg(&self.bundle);
        command.arg(format!("isopod-bench-{}", process::id()));
        let timed = Timed::of(&mut command)?;
        ensure!(timed.status.success(), "{} run failed: {}", self.name, timed.stderr.trim());
        Ok(timed.wall)
    }
}
