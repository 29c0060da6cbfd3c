// SPDX-License-Identifier: Apache-2.0
//! What a container is to be, as far as its user says. Types that cannot be wrong: each is checked where it is made,
//! and a door only has to say which of its fields the error came from.

use super::name::Name;
use super::word::Word;
use crate::capabilities::Capabilities;
use crate::seccomp::Profile;
use isopod_jail::Layers;
use isopod_vmm::config::{MAX_VCPUS, MIN_MEMORY_MIB};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

const MIB: u64 = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// As typed; what it is resolved to is in the record.
    pub image: String,
    /// One is thrown if there is none.
    pub name: Option<Name>,
    /// Remove the container when it ends.
    pub remove: bool,
    pub process: ProcessSpec,
    pub machine: MachineSpec,
    pub security: SecuritySpec,
    pub root: RootSpec,
    pub hostname: Option<Hostname>,
    pub labels: BTreeMap<String, String>,
}

/// What of the process differs from what the image says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// In place of the image's; empty for none.
    pub entrypoint: Option<Vec<Word>>,
    pub command: Vec<Word>,
    /// `NAME=value`, later ones over earlier ones over the image's.
    pub env: Vec<Word>,
    pub cwd: Option<Cwd>,
    pub user: Option<String>,
    pub stdin: bool,
    pub terminal: bool,
    pub init: bool,
    pub rlimits: Vec<Ulimit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    pub memory: Memory,
    pub vcpus: Vcpus,
    /// In place of the one that would be found.
    pub kernel: Option<PathBuf>,
    /// A machine with one always boots: a template has none.
    pub console: Option<Console>,
    /// Start from a template, which is made if there is none, or else boot.
    pub template: bool,
}

impl Default for MachineSpec {
    fn default() -> Self {
        Self {
            memory: Memory::default(),
            vcpus: Vcpus::default(),
            kernel: None,
            console: None,
            template: true,
        }
    }
}

/// Where a serial console's output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Console {
    Stderr,
    File(PathBuf),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecuritySpec {
    /// What of the machine's own jail is left out.
    #[serde(default)]
    pub unjailed: Layers,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// Leave the kernel's delicate files unmasked.
    pub system_paths_unconfined: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    Default,
    Unconfined,
    Profile(Profile),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootSpec {
    pub read_only: bool,
    pub tmpfs: Vec<TmpfsMount>,
}

/// Why a value can't be. The door adds which one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadValue {
    #[error("{0} bytes are too few: a machine needs at least {MIN_MEMORY_MIB} MiB")]
    TooLittleMemory(u64),
    #[error("{0} bytes are more than a machine can have")]
    TooMuchMemory(u64),
    #[error("{0} CPUs: a machine has 1 to {MAX_VCPUS}")]
    Vcpus(u32),
    #[error("`{}` is not a host name: labels of 1 to 63 letters, digits and `-`, 253 in all", .0.escape_debug())]
    Hostname(String),
    #[error("`{}` is not an absolute path", .0.escape_debug())]
    NotAbsolute(String),
    #[error("no limit is called `{}`", .0.escape_debug())]
    Ulimit(String),
    #[error("its soft limit {soft} is above its hard limit {hard}")]
    SoftAboveHard { soft: u64, hard: u64 },
    #[error("`{}` is not an option of a tmpfs", .0.escape_debug())]
    TmpfsOption(String),
}

/// Guest memory in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Memory(u32);

impl Memory {
    /// Rounded up to whole MiB.
    pub fn from_bytes(bytes: u64) -> Result<Self, BadValue> {
        let mib = u32::try_from(bytes.div_ceil(MIB)).map_err(|_| BadValue::TooMuchMemory(bytes))?;
        if bytes < u64::from(MIN_MEMORY_MIB) * MIB {
            Err(BadValue::TooLittleMemory(bytes))
        } else {
            Ok(Self(mib))
        }
    }

    pub fn mib(self) -> u32 {
        self.0
    }

    pub fn bytes(self) -> u64 {
        u64::from(self.0) * MIB
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self(256)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Vcpus(u8);

impl Vcpus {
    pub fn new(count: u32) -> Result<Self, BadValue> {
        let bounded = u8::try_from(count).ok().filter(|n| (1..=MAX_VCPUS).contains(n));
        bounded.map(Self).ok_or(BadValue::Vcpus(count))
    }

    pub fn count(self) -> u8 {
        self.0
    }
}

impl Default for Vcpus {
    fn default() -> Self {
        Self(1)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hostname(String);

impl FromStr for Hostname {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        // The kernel's own limit is 64 (`__NEW_UTS_LEN`), DNS's 253; the kernel's is the one that would fail.
        let good = text.len() <= 64 && text.split('.').all(label);
        if good { Ok(Self(text.to_owned())) } else { Err(BadValue::Hostname(text.to_owned())) }
    }
}

impl Hostname {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An absolute path in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cwd(Word);

impl Cwd {
    pub fn new(path: &[u8]) -> Result<Self, BadValue> {
        match (path, Word::new(path)) {
            ([b'/', ..], Some(word)) => Ok(Self(word)),
            _ => Err(BadValue::NotAbsolute(String::from_utf8_lossy(path).into_owned())),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// As in `struct rlimit64`.
pub const UNLIMITED: u64 = u64::MAX;

/// `RLIMIT_*` of x86_64 (`asm-generic/resource.h`) by the names of `--ulimit`.
const ULIMITS: &[(&str, u32)] = &[
    ("cpu", 0),
    ("fsize", 1),
    ("data", 2),
    ("stack", 3),
    ("core", 4),
    ("rss", 5),
    ("nproc", 6),
    ("nofile", 7),
    ("memlock", 8),
    ("as", 9),
    ("locks", 10),
    ("sigpending", 11),
    ("msgqueue", 12),
    ("nice", 13),
    ("rtprio", 14),
    ("rttime", 15),
];

impl Ulimit {
    pub fn new(name: &str, soft: u64, hard: u64) -> Result<Self, BadValue> {
        let found = ULIMITS.iter().find(|(n, _)| *n == name);
        let (_, resource) = found.ok_or_else(|| BadValue::Ulimit(name.to_owned()))?;
        if soft > hard {
            return Err(BadValue::SoftAboveHard { soft, hard });
        }
        Ok(Self { resource: *resource, soft, hard })
    }
}

/// A tmpfs in the container, with Docker's options before those that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsMount {
    pub(crate) target: String,
    pub(crate) options: String,
}

const TMPFS_DEFAULTS: &str = "rw,nosuid,nodev,noexec";
const TMPFS_FLAGS: &[&str] = &[
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];
const TMPFS_VALUES: &[&str] = &["size", "nr_blocks", "nr_inodes", "mode", "uid", "gid"];

impl TmpfsMount {
    pub fn new(target: &str, options: &str) -> Result<Self, BadValue> {
        if !target.starts_with('/') || target.contains('\0') {
            return Err(BadValue::NotAbsolute(target.to_owned()));
        }
        for option in options.split(',').filter(|o| !o.is_empty()) {
            let good = match option.split_once('=') {
                Some((name, value)) => {
                    TMPFS_VALUES.contains(&name)
                        && !value.is_empty()
                        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%')
                }
                None => TMPFS_FLAGS.contains(&option),
            };
            if !good {
                return Err(BadValue::TmpfsOption(option.to_owned()));
            }
        }
        let mut all = TMPFS_DEFAULTS.to_owned();
        if !options.is_empty() {
            all.push(',');
            all.push_str(options);
        }
        Ok(Self { target: target.to_owned(), options: all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_mib_are_too_few_and_the_error_says_how_many_it_takes() {
        let error = Memory::from_bytes(8 * MIB).unwrap_err().to_string();
        assert!(error.contains("32 MiB"), "{error}");
    }

    #[test]
    fn memory_is_rounded_up_to_whole_mib() {
        assert_eq!(Memory::from_bytes(64 * MIB + 1).unwrap().mib(), 65);
        assert_eq!(Memory::from_bytes(32 * MIB).unwrap().bytes(), 32 * MIB);
        assert!(Memory::from_bytes(u64::MAX).is_err());
    }

    #[test]
    fn no_cpus_and_a_thousand_are_refused() {
        assert_eq!(Vcpus::new(0), Err(BadValue::Vcpus(0)));
        assert_eq!(Vcpus::new(1000), Err(BadValue::Vcpus(1000)));
        assert_eq!(Vcpus::new(16).unwrap().count(), 16);
    }

    #[test]
    fn host_names_are_labels() {
        for good in ["web", "web-1", "a.b.c", "X", "with_underscore"] {
            assert!(good.parse::<Hostname>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", ".a", "a b", "a\n127.0.0.1 x", &"a".repeat(64)] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_is_refused() {
        assert_eq!(
            Ulimit::new("nofile", 1024, 2048).unwrap(),
            Ulimit { resource: 7, soft: 1024, hard: 2048 }
        );
        assert!(Ulimit::new("nofile", 2, 1).is_err());
        assert!(Ulimit::new("files", 1, 1).is_err());
    }

    #[test]
    fn a_tmpfs_has_dockers_options_first() {
        let mount = TmpfsMount::new("/run", "exec,size=64m").unwrap();
        assert_eq!(mount.options, "rw,nosuid,nodev,noexec,exec,size=64m");
        assert!(TmpfsMount::new("run", "").is_err());
        assert!(TmpfsMount::new("/run", "size=64m,lowerdir=/etc").is_err());
    }

    #[test]
    fn a_working_directory_is_absolute() {
        assert!(Cwd::new(b"/srv").is_ok());
        assert!(Cwd::new(b"srv").is_err() && Cwd::new(b"/a\0b").is_err() && Cwd::new(b"").is_err());
    }
}
