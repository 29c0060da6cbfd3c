// SPDX-License-Identifier: Apache-2.0
//! Which layers hold a process back, by what the kernel says of it: the process itself is not asked.

use super::group::{ROOT, Version, version};
use super::ids;
use super::landlock;
use super::layers::Layer;
use rustix::process::geteuid;
use serde::Serialize;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observation {
    /// A layer's name, or what every jail has.
    pub name: &'static str,
    /// `None` if it cannot be told from outside.
    pub holds: Option<bool>,
    pub found: String,
}

/// Most entries of a root that is empty but for what a machine may need in it.
const ROOT_MAX: usize = 8;
/// A limit above this is none.
const NO_LIMIT: u64 = 1 << 62;
/// What a jailed process's descriptors may be, by the beginning of their names.
const DESCRIPTORS: [&str; 7] =
    ["anon_inode:", "socket:", "pipe:", "/memfd:", "/disks/", "/dev/kvm", "/dev/null"];

/// Looks at a process from outside.
pub fn observe(pid: u32) -> io::Result<Vec<Observation>> {
    let process = Process::of(pid)?;
    let layers = Layer::ALL.into_iter().map(|layer| {
        let (holds, found) = process.layer(layer);
        Observation { name: layer.name(), holds, found }
    });
    let always = [("descriptors", process.descriptors()), ("environment", process.environment())];
    let always = always.into_iter().map(|(name, (holds, found))| Observation { name, holds, found });
    Ok(layers.chain(always).collect())
}

type Found = (Option<bool>, String);

fn told(holds: bool, found: impl Into<String>) -> Found {
    (Some(holds), found.into())
}

struct Process {
    folder: PathBuf,
    /// The status of each thread.
    threads: Vec<String>,
}

impl Process {
    fn of(pid: u32) -> io::Result<Self> {
        let folder = Path::new("/proc").join(pid.to_string());
        let mut threads = Vec::new();
        for task in fs::read_dir(folder.join("task"))? {
            // One that ends meanwhile is none of its any more.
            threads.extend(fs::read_to_string(task?.path().join("status")));
        }
        if threads.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { folder, threads })
    }

    fn layer(&self, layer: Layer) -> Found {
        match layer {
            Layer::ControlGroup => self.group(),
            Layer::User => self.user(),
            Layer::Mount => self.root(),
            Layer::Pid => self.namespace("pid"),
            Layer::Network => self.namespace("net"),
            Layer::Ipc => self.namespace("ipc"),
            Layer::Uts => self.namespace("uts"),
            Layer::ControlGroupView => self.namespace("cgroup"),
            Layer::Limits => self.limits(),
            Layer::Capabilities => self.capabilities(),
            Layer::Untraceable => self.untraceable(),
            Layer::NoNewPrivileges => self.every("NoNewPrivs", "1"),
            Layer::Landlock => {
                let found = landlock::abi().map_or("this host has none".to_owned(), |abi| {
                    format!(
                        "no view from outside; this host has version {abi}, and a start without is refused"
                    )
                });
                (None, found)
            }
            Layer::Seccomp => self.every("Seccomp", "2"),
        }
    }

    fn namespace(&self, name: &str) -> Found {
        let own = fs::read_link(self.folder.join("ns").join(name));
        let ours = fs::read_link(Path::new("/proc/self/ns").join(name));
        match (own, ours) {
            (Ok(own), Ok(ours)) => {
                let found = format!("{} (here {})", own.display(), ours.display());
                told(own != ours, found)
            }
            (Err(e), _) | (_, Err(e)) => told(false, e.to_string()),
        }
    }

    fn user(&self) -> Found {
        let (Some(apart), namespace) = self.namespace("user") else { return told(false, "unknown") };
        let ids = words(&self.threads[0], "Uid");
        let nobodys =
            |id: &&str| id.parse().is_ok_and(|id: u32| (ids::FIRST..ids::FIRST + ids::COUNT).contains(&id));
        let own = ids.iter().all(nobodys);
        let without_root = !geteuid().is_root() && !ids.contains(&"0");
        told(apart && (own || without_root), format!("ids {}, {namespace}", ids.join(" ")))
    }

    fn root(&self) -> Found {
        let (apart, namespace) = self.namespace("mnt");
        let entries = fs::read_dir(self.folder.join("root")).map(Iterator::count);
        match entries {
            Ok(n) => {
                let empty = n <= ROOT_MAX
                    && !self.folder.join("root/proc").exists()
                    && !self.folder.join("root/etc").exists();
                told(apart == Some(true) && empty, format!("{n} entries, {namespace}"))
            }
            Err(e) => told(false, e.to_string()),
        }
    }

    fn group(&self) -> Found {
        let groups = fs::read_to_string(self.folder.join("cgroup")).unwrap_or_default();
        let path = |controller: &str| {
            let mut lines = groups.lines().filter_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                Some((parts.next()?, parts.next()?))
            });
            let of = |(names, _): &(&str, &str)| names.split(',').any(|name| name == controller);
            let place = lines.find(of)?.1.trim_start_matches('/');
            Some(Path::new(ROOT).join(controller).join(place))
        };
        let files = match version() {
            Some(Version::One) => [
                path("memory").map(|p| p.join("memory.limit_in_bytes")),
                path("pids").map(|p| p.join("pids.max")),
            ],
            Some(Version::Two) => ["memory.max", "pids.max"].map(|file| path("").map(|p| p.join(file))),
            None => return told(false, "this host has no control groups for memory, pids and cpu"),
        };
        let limits = files
            .map(|file| fs::read_to_string(file?).ok()?.trim().parse::<u64>().ok().filter(|n| *n < NO_LIMIT));
        match limits {
            [Some(memory), Some(threads)] => {
                told(true, format!("{} MiB of memory, {threads} threads", memory >> 20))
            }
            _ => told(false, "no limit of memory or of threads"),
        }
    }

    fn limits(&self) -> Found {
        let limits = fs::read_to_string(self.folder.join("limits")).unwrap_or_default();
        let names = [
            "Max core file size",
            "Max open files",
            "Max file size",
            "Max processes",
            "Max locked memory",
            "Max stack size",
        ];
        let soft = |name: &str| {
            limits.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next())
        };
        let found = names
            .map(|name| format!("{} {}", name.trim_start_matches("Max "), soft(name).unwrap_or("unknown")));
        told(names.iter().all(|name| soft(name).is_some_and(|soft| soft != "unlimited")), found.join(", "))
    }

    fn capabilities(&self) -> Found {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            if let (Some(false), found) = self.every(set, "0000000000000000") {
                return told(false, format!("{set}: {found}"));
            }
        }
        told(true, format!("none in {} threads", self.threads.len()))
    }

    /// Whether each thread's status says this.
    fn every(&self, key: &str, value: &str) -> Found {
        let other = self.threads.iter().find(|status| words(status, key) != [value]);
        match other {
            Some(status) => told(
                false,
                format!("{} of thread {}", words(status, key).join(" "), words(status, "Name").join(" ")),
            ),
            None => told(!self.threads.is_empty(), format!("{value} in {} threads", self.threads.len())),
        }
    }

    /// What is not dumpable belongs, in /proc, to root.
    fn untraceable(&self) -> Found {
        let Ok(mem) = fs::metadata(self.folder.join("mem")) else { return told(false, "unknown") };
        if !geteuid().is_root() {
            return (None, "without root this cannot be told".to_owned());
        }
        told(
            mem.uid() == 0 && !words(&self.threads[0], "Uid").contains(&"0"),
            format!("its memory is user {}'s", mem.uid()),
        )
    }

    fn descriptors(&self) -> Found {
        let Ok(folder) = fs::read_dir(self.folder.join("fd")) else { return told(false, "unknown") };
        let names = folder.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        let strange = names
            .iter()
            .find(|name| !DESCRIPTORS.iter().any(|known| name.starts_with(known)) || name.contains("vhost"));
        match strange {
            // Without root a layer is opened by its path, which shows.
            Some(name) if !geteuid().is_root() => (None, format!("{name} among {}", names.len())),
            Some(name) => told(false, format!("{name} among {}", names.len())),
            None => told(true, format!("{} sockets, events, KVM's and disks", names.len())),
        }
    }

    fn environment(&self) -> Found {
        match fs::read(self.folder.join("environ")) {
            Ok(bytes) => told(bytes.is_empty(), format!("{} bytes", bytes.len())),
            Err(e) => told(false, e.to_string()),
        }
    }
}

/// What a status says after a key.
fn words<'a>(status: &'a str, key: &str) -> Vec<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().split_ascii_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    #[test]
    fn a_process_that_was_never_jailed_has_hardly_a_layer() {
        let found = observe(process::id()).unwrap();
        for name in ["user", "mount", "pid", "net", "ipc", "uts", "cgroupns", "seccomp", "environment"] {
            let about = found.iter().find(|one| one.name == name).unwrap();
            assert_eq!(about.holds, Some(false), "{about:?}");
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(observe(u32::MAX).is_err());
    }
}
