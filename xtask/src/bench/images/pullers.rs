// SPDX-License-Identifier: Apache-2.0
//! Who pulls: isopod and its peers, each from an empty store to something a container could start from.

use super::super::isopod::Isopod;
use super::usage::{self, Account, BY_FILTER, COUNT, Usage};
use crate::say;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Puller {
    Isopod,
    Umoci,
    Podman,
    Containerd,
}

impl Puller {
    pub(super) const ALL: [Self; 4] = [Self::Isopod, Self::Umoci, Self::Podman, Self::Containerd];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Isopod => "isopod",
            Self::Umoci => "skopeo + umoci",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
        }
    }

    /// A peer that is missing is left out, and it is said how to have it.
    pub(super) fn is_there(self) -> bool {
        let (program, package) = match self {
            Self::Isopod => return true,
            Self::Umoci => ("umoci", "umoci skopeo"),
            Self::Podman => ("podman", "podman"),
            Self::Containerd => ("ctr", "containerd"),
        };
        let there =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if there.is_err() {
            say::line(format_args!("{} is missing and left out: apt install {package}", self.name()));
        }
        there.is_ok()
    }

    pub(super) fn pull(self, isopod: &Isopod, folder: &Path, image: &str) -> Result<Usage> {
        match self {
            Self::Containerd => containerd(folder, image, None),
            _ => usage::of(&mut self.commands(isopod, folder, image)?),
        }
    }

    /// How often a pull has the disk do at once what it was told.
    pub(super) fn count_syncs(self, isopod: &Isopod, folder: &Path, image: &str) -> Result<f64> {
        let log = folder.join("syncs");
        if self == Self::Containerd {
            containerd(folder, image, Some(&log))?;
            return usage::syncs(&log);
        }
        let mut sum = 0.0;
        for command in self.commands(isopod, folder, image)? {
            let mut strace = Command::new("strace");
            strace
                .args(COUNT)
                .arg(BY_FILTER)
                .arg("-o")
                .arg(&log)
                .arg(command.get_program())
                .args(command.get_args());
            strace.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            usage::run(&mut strace)?;
            sum += usage::syncs(&log)?;
        }
        Ok(sum)
    }

    fn commands(self, isopod: &Isopod, folder: &Path, image: &str) -> Result<Vec<Command>> {
        fs::create_dir_all(folder).context("cannot make a folder for a pull")?;
        let at = |name: &str| folder.join(name);
        let mut command = match self {
            Self::Isopod => {
                let mut pull = isopod.command();
                pull.env("ISOPOD_DATA_ROOT", at("data")).args(["pull", "-q"]);
                pull
            }
            Self::Umoci => {
                let mut copy = Command::new("skopeo");
                copy.args(["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{image}")]);
                copy.arg(format!("oci:{}:bench", at("layout").display()));
                let mut unpack = Command::new("umoci");
                unpack
                    .args(["unpack", "--image", &format!("{}:bench", at("layout").display())])
                    .arg(at("bundle"));
                return Ok(vec![copy, unpack]);
            }
            Self::Podman => {
                let mut pull = Command::new("podman");
                pull.arg("--root").arg(at("root")).arg("--runroot").arg(at("run"));
                pull.args(["--storage-driver", "overlay", "pull", "--quiet", "--tls-verify=false"]);
                pull
            }
            Self::Containerd => return Ok(Vec::new()),
        };
        command.arg(image);
        Ok(vec![command])
    }

    /// What a storage driver has mounted has to go first.
    pub(super) fn clean(self, folder: &Path) -> Result<()> {
        if self == Self::Podman {
            for store in ["timed", "counted"] {
                let _ =
                    Command::new("umount").arg("-l").arg(folder.join(store).join("root/overlay")).output();
            }
        }
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {} away", folder.display()))
    }
}

/// A daemon of its own pulls for `ctr`; its part is counted with its client's, its start and its end are not.
fn containerd(folder: &Path, image: &str, count: Option<&Path>) -> Result<Usage> {
    fs::create_dir_all(folder).context("cannot make a folder for a pull")?;
    let daemon = Daemon::start(folder)?;
    let process = daemon.0.id().to_string();
    let tracer = count.map(|log| {
        let mut strace = Command::new("strace");
        strace.args(COUNT).args(["-p", &process, "-o"]).arg(log);
        strace.stderr(Stdio::null()).spawn().context("cannot run strace")
    });
    let tracer = tracer.transpose()?;
    if tracer.is_some() {
        // Until it is attached to all threads.
        sleep(Duration::from_secs(1));
    }
    let before = Account::of(&process)?;
    let mut pull = Command::new("ctr");
    pull.arg("--address").arg(folder.join("sock")).args(["images", "pull", "--plain-http", image]);
    let client = usage::of(&mut [pull])?;
    let own = Account::of(&process)?.since(before);
    drop(daemon);
    if let Some(mut tracer) = tracer {
        tracer.wait().context("cannot wait for strace")?;
    }
    Ok(Usage { cpu: client.cpu + own.cpu, written: client.written + own.written, ..client })
}

#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    fn start(folder: &Path) -> Result<Self> {
        let config = folder.join("config.toml");
        fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
            .context("cannot write containerd's configuration")?;
        let log = File::create(folder.join("log")).context("cannot make a log")?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(folder.join("root"))
            .arg("--state")
            .arg(folder.join("state"))
            .arg("--address")
            .arg(folder.join("sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot run containerd")?;
        let daemon = Self(child);
        let began = Instant::now();
        loop {
            let mut asked = Command::new("ctr");
            asked.arg("--address").arg(folder.join("sock")).arg("version");
            if usage::run(&mut asked).is_ok() {
                return Ok(daemon);
            }
            ensure!(began.elapsed() < PATIENCE, "containerd does not answer");
            sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
