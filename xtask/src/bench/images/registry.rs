// SPDX-License-Identifier: Apache-2.0
//! Debian's `docker-registry` on a loopback port, with the image in it.

use super::usage;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, copy, sink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

const IMAGE: &str = "bench:1";

#[derive(Debug)]
pub(super) struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    pub(super) fn start(folder: &Path, layout: &Path) -> Result<Self> {
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
            folder.join("registry").display()
        );
        let place = folder.join("registry.yml");
        fs::write(&place, config).context("cannot write the registry's configuration")?;
        let log = File::create(folder.join("registry.log")).context("cannot make a log")?;
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&place)
            .stdout(log)
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run docker-registry: apt install docker-registry")?;
        let mut said = BufReader::new(child.stderr.take().context("it has a stderr")?);
        let host = listening(&mut said).context("docker-registry does not say where it listens")?;
        // It must not wait for a reader.
        thread::spawn(move || copy(&mut said, &mut sink()));
        let registry = Self { child, host };
        let mut push = Command::new("skopeo");
        push.args(["copy", "--quiet", "--dest-tls-verify=false"]);
        push.arg(format!("oci:{}:bench", layout.display())).arg(format!("docker://{}", registry.name()));
        usage::run(&mut push)?;
        Ok(registry)
    }

    /// What the image is pulled by.
    pub(super) fn name(&self) -> String {
        format!("{}/{IMAGE}", self.host)
    }
}

/// `127.0.0.1:PORT`, from the line that says so.
fn listening(said: &mut impl BufRead) -> Option<String> {
    said.lines().map_while(Result::ok).find_map(|line| {
        let (_, after) = line.split_once("listening on ")?;
        let end = after.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
        Some(after[..end.unwrap_or(after.len())].to_owned())
    })
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
