// SPDX-License-Identifier: Apache-2.0
//! Which layers hold a process back, by what the kernel says of it: the process itself is not asked.

use super::group::{ROOT, Version, version};
use super::ids;
use super::landlock;
use super::layers::Layer;
use rustix::process::geteuid;
use serde::Serialize;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
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
const DESCRIPTORS: [&str; 6] = ["anon_inode:", "socket:", "pipe:", "/memfd:", "/dev/kvm", "/dev/null"];
/// As are those of files that were opened in a `View` of the folder above.
const DISKS: &str = "/disks/";

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
        // Without root it is its starter's.
        let own = own || !ids::may_be_taken() && ids.iter().all(|id| *id == geteuid().as_raw().to_string());
        told(apart && own, format!("ids {}, {namespace}", ids.join(" ")))
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
        let read = |controller: &str, file: &str| fs::read_to_string(path(controller)?.join(file)).ok();
        let [memory, threads, processors] = match version() {
            Some(Version::One) => {
                let [quota, period] = ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|file| read("cpu", file));
                let processors =
                    quota.zip(period).map(|(quota, period)| format!("{} {period}", quota.trim()));
                [read("memory", "memory.limit_in_bytes"), read("pids", "pids.max"), processors]
            }
            Some(Version::Two) => ["memory.max", "pids.max", "cpu.max"].map(|file| read("", file)),
            None => return told(false, "this host has no control groups for memory, pids and cpu"),
        };
        let limit = |text: Option<String>| text?.trim().parse::<u64>().ok().filter(|n| *n < NO_LIMIT);
        match (limit(memory), limit(threads), processors.as_deref().and_then(share)) {
            (Some(memory), Some(threads), Some(processors)) => {
                let memory = memory >> 20;
                told(
                    true,
                    format!("{memory} MiB of memory, {threads} threads, {processors} processors' time"),
                )
            }
            _ => told(false, "no limit of memory, of threads or of the processors' time"),
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
            "Max data size",
        ];
        // The one that holds, and how far the process itself may raise it.
        let both = |name: &str| -> Option<[&str; 2]> {
            let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
            let mut words = line.split_ascii_whitespace();
            Some([words.next()?, words.next()?])
        };
        let limited = |name: &&str| both(name).is_some_and(|both| !both.contains(&"unlimited"));
        let found = names.map(|name| {
            let what = name.trim_start_matches("Max ");
            both(name)
                .map_or_else(|| format!("{what} unknown"), |[soft, hard]| format!("{what} {soft} of {hard}"))
        });
        told(names.iter().all(limited), found.join(", "))
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
        if !ids::may_be_taken() {
            return (None, "without root this cannot be told".to_owned());
        }
        told(
            mem.uid() == 0 && !words(&self.threads[0], "Uid").contains(&"0"),
            format!("its memory is user {}'s", mem.uid()),
        )
    }

    fn descriptors(&self) -> Found {
        let Ok(folder) = fs::read_dir(self.folder.join("fd")) else { return told(false, "unknown") };
        let name = |entry: DirEntry| Some((fs::read_link(entry.path()).ok()?, entry.file_name()));
        let all: Vec<_> = folder.flatten().filter_map(name).collect();
        let strange = all.iter().find(|(name, number)| {
            let name = name.to_string_lossy();
            let known = DESCRIPTORS.iter().any(|known| name.starts_with(known)) && !name.contains("vhost");
            let is_disk = || name.starts_with(DISKS) && self.is_nowhere(number);
            !(known || is_disk())
        });
        match strange.map(|(name, _)| format!("{} among {}", name.display(), all.len())) {
            // Without root a layer is opened by its path, which shows.
            Some(found) if !ids::may_be_taken() => (None, found),
            Some(found) => told(false, found),
            None => told(true, format!("{} sockets, events, KVM's and disks", all.len())),
        }
    }

    /// Whether a descriptor's file was opened through a mount that is no place here: then its name is none either.
    fn is_nowhere(&self, number: &OsStr) -> bool {
        let about = fs::read_to_string(self.folder.join("fdinfo").join(number)).unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        mount.is_some_and(|id| mounts.lines().all(|line| line.split(' ').next() != Some(id.trim())))
    }

    fn environment(&self) -> Found {
        match fs::read(self.folder.join("environ")) {
            Ok(bytes) => told(bytes.is_empty(), format!("{} bytes", bytes.len())),
            Err(e) => told(false, e.to_string()),
        }
    }
}

/// How many processors' time a quota in a period is; `None` if there is no limit (`max`, and -1 in version 1).
fn share(text: &str) -> Option<f64> {
    let mut words = text.split_ascii_whitespace().map(str::parse::<u32>);
    match (words.next()?.ok()?, words.next()?.ok()?) {
        (_, 0) => None,
        (quota, period) => Some(f64::from(quota) / f64::from(period)),
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
    use std::os::unix::fs::symlink;
    use std::process;
    use tempfile::{TempDir, tempdir};

    #[test]
    fn a_process_that_was_never_jailed_has_hardly_a_layer() {
        let found = observe(process::id()).unwrap();
        for name in ["user", "mount", "pid", "net", "ipc", "uts", "cgroupns", "seccomp", "environment"] {
            let about = found.iter().find(|one| one.name == name).unwrap();
            assert_eq!(about.holds, Some(false), "{about:?}");
        }
    }

    /// A process whose folder says what a test says.
    fn process() -> (TempDir, Process) {
        let folder = tempdir().unwrap();
        for below in ["fd", "fdinfo"] {
            fs::create_dir(folder.path().join(below)).unwrap();
        }
        let process = Process { folder: folder.path().to_owned(), threads: Vec::new() };
        (folder, process)
    }

    const LIMITED: &str = "\
Max file size             1048576              1048576              bytes
Max data size             1048576              1048576              bytes
Max stack size            8388608              8388608              bytes
Max core file size        0                    0                    bytes
Max processes             16                   16                   processes
Max open files            509                  509                  files
Max locked memory         65536                65536                bytes
";

    #[test]
    fn a_limit_that_can_be_raised_and_one_that_is_missing_are_none() {
        let (folder, process) = process();
        let holds = |text: &str| {
            fs::write(folder.path().join("limits"), text).unwrap();
            process.limits().0
        };
        assert_eq!(holds(LIMITED), Some(true));
        assert_eq!(holds(&LIMITED.replace(" 16  ", " unlimited  ")), Some(false));
        assert_eq!(
            holds(&LIMITED.replace("509                  files", "unlimited            files")),
            Some(false)
        );
        assert_eq!(holds(&LIMITED.replace("Max data size", "Max other size")), Some(false));
    }

    #[test]
    fn a_disk_that_has_a_place_on_this_host_is_no_disk_of_a_views() {
        let (folder, process) = process();
        symlink("/disks/of-a-view", folder.path().join("fd/3")).unwrap();
        let holds = |mount: &str| {
            fs::write(folder.path().join("fdinfo/3"), format!("pos:\t0\nmnt_id:\t{mount}\n")).unwrap();
            process.descriptors().0
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = mounts.split(' ').next().unwrap();
        assert_eq!(holds("4294967295"), Some(true));
        assert_ne!(holds(here), Some(true));
    }

    #[test]
    fn no_quota_is_no_limit() {
        assert_eq!(share("150000 100000\n"), Some(1.5));
        for none in ["max 100000\n", "-1 100000\n", "100000", ""] {
            assert_eq!(share(none), None, "{none}");
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(observe(u32::MAX).is_err());
    }
}
