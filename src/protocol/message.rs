// SPDX-License-Identifier: Apache-2.0
//! The messages. Fields are only ever added, with new numbers; a number is never used again.
//!
//! ```text
//!    agent                         host
//!      │── Hello ─────────────────►│   once, first
//!      │◄────────────── Prepare ───│   at most once; the agent goes to its mailbox, where it finds Start
//!      │◄──────────────── Start ───│   once
//!      │── Started | Failed ──────►│
//!      │◄─ Signal, Resize ─────────│   any number; Signal is answered by Ack
//!      │◄─────────────── Freeze ───│   any number; from then on the host is silent
//!      │── Frozen ────────────────►│   the agent goes to its mailbox, where, in this life or another,
//!      │◄───────────────── Thaw ───│   it finds who it is now
//!      │── Thawed ────────────────►│
//!      │── Exited ────────────────►│   last, after the streams' ends; the host then ends the machine
//! ```

use prost::{Enumeration, Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub struct FromHost {
    #[prost(oneof = "HostSays", tags = "1, 2, 3, 4, 5, 6")]
    pub says: Option<HostSays>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum HostSays {
    #[prost(message, boxed, tag = "1")]
    Start(Box<Container>),
    #[prost(message, tag = "2")]
    Signal(Signal),
    #[prost(message, tag = "3")]
    Resize(WindowSize),
    /// Stop the container's processes where they are, and wait at the mailbox.
    #[prost(message, tag = "4")]
    Freeze(Freeze),
    #[prost(message, tag = "5")]
    Thaw(Thaw),
    /// What the container will probably be: do all that can be done for such a one, and wait at the mailbox.
    #[prost(message, boxed, tag = "6")]
    Prepare(Box<Container>),
}

impl FromHost {
    pub fn prepare(likely: Container) -> Self {
        Self { says: Some(HostSays::Prepare(Box::new(likely))) }
    }
    pub fn start(container: Container) -> Self {
        Self { says: Some(HostSays::Start(Box::new(container))) }
    }
    pub fn signal(number: i32) -> Self {
        Self { says: Some(HostSays::Signal(Signal { number })) }
    }
    pub fn resize(size: WindowSize) -> Self {
        Self { says: Some(HostSays::Resize(size)) }
    }
    pub fn freeze() -> Self {
        Self { says: Some(HostSays::Freeze(Freeze {})) }
    }
    pub fn thaw(thaw: Thaw) -> Self {
        Self { says: Some(HostSays::Thaw(thaw)) }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct FromAgent {
    #[prost(oneof = "AgentSays", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub says: Option<AgentSays>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum AgentSays {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Started(Started),
    #[prost(message, tag = "3")]
    Failed(Failed),
    /// A signal was delivered (or there was nobody left to take it).
    #[prost(message, tag = "4")]
    Ack(Ack),
    #[prost(message, tag = "5")]
    Exited(Exited),
    /// All of the container's processes stand still, or why they do not; in that case they all run on.
    #[prost(message, tag = "6")]
    Frozen(Frozen),
    #[prost(message, tag = "7")]
    Thawed(Thawed),
}

impl From<AgentSays> for FromAgent {
    fn from(says: AgentSays) -> Self {
        Self { says: Some(says) }
    }
}

/// What a container is, once everything that can be worked out on the host has been.
#[derive(Clone, PartialEq, Message)]
pub struct Container {
    /// Arguments, the program first; looked up in the container's PATH if it has no slash.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub args: Vec<Vec<u8>>,
    /// `NAME=value`.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub env: Vec<Vec<u8>>,
    /// Absolute; made if missing, as Docker does.
    #[prost(bytes = "vec", tag = "3")]
    pub cwd: Vec<u8>,
    /// `user[:group]`, names or numbers as in an image's `User`; empty is root.
    #[prost(string, tag = "4")]
    pub user: String,
    #[prost(string, tag = "5")]
    pub hostname: String,
    /// Present: the process gets a terminal of this size, else three pipes.
    #[prost(message, optional, tag = "6")]
    pub terminal: Option<WindowSize>,
    /// Whether anybody will write to stdin; if not it is empty.
    #[prost(bool, tag = "7")]
    pub stdin: bool,
    /// Bounding, permitted and effective set alike, as a bit mask (capabilities(7) numbers); inheritable and ambient
    /// are empty.
    #[prost(uint64, tag = "8")]
    pub capabilities: u64,
    #[prost(bool, tag = "9")]
    pub no_new_privileges: bool,
    /// A compiled classic BPF program (`struct sock_filter` array, native endian); empty is unconfined.
    #[prost(bytes = "vec", tag = "10")]
    pub seccomp: Vec<u8>,
    #[prost(message, repeated, tag = "11")]
    pub rlimits: Vec<Rlimit>,
    #[prost(bool, tag = "12")]
    pub read_only_root: bool,
    #[prost(message, repeated, tag = "13")]
    pub tmpfs: Vec<Tmpfs>,
    /// Hidden: a file behind /dev/null, a folder behind an empty read-only tmpfs. Missing ones are skipped.
    #[prost(string, repeated, tag = "14")]
    pub masked_paths: Vec<String>,
    #[prost(string, repeated, tag = "15")]
    pub read_only_paths: Vec<String>,
    /// Run the process under a small init that forwards signals and reaps orphans.
    #[prost(bool, tag = "16")]
    pub init: bool,
    /// The host's wall clock when this was sent, in ns since the epoch.
    #[prost(uint64, tag = "17")]
    pub realtime_ns: u64,
    /// Lines `ip name…` are made by the host: /etc/hosts, /etc/resolv.conf and /etc/hostname, whole.
    #[prost(message, repeated, tag = "18")]
    pub files: Vec<EtcFile>,
    /// Fresh entropy from the host, for the guest's pool.
    #[prost(bytes = "vec", tag = "19")]
    pub entropy: Vec<u8>,
    /// What the image's root and its /etc are, if neither is in the way of what lies above them: /etc is a folder without
    /// extended attributes or not there, and none of `files` is a link or a folder in it.
    #[prost(message, optional, tag = "20")]
    pub image: Option<ImageFolders>,
    /// This many of PATH's folders, from its front, certainly lack the program.
    #[prost(uint32, tag = "21")]
    pub folders_without: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ImageFolders {
    #[prost(message, required, tag = "1")]
    pub root: Folder,
    #[prost(message, required, tag = "2")]
    pub etc: Folder,
}

/// What `stat` says of a folder.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Folder {
    #[prost(uint32, tag = "1")]
    pub mode: u32,
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    #[prost(uint32, tag = "3")]
    pub gid: u32,
    #[prost(int64, tag = "4")]
    pub modified_s: i64,
    #[prost(uint32, tag = "5")]
    pub modified_ns: u32,
}

/// A small file bound over one in the container's /etc.
#[derive(Clone, PartialEq, Message)]
pub struct EtcFile {
    /// Absolute.
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(bytes = "vec", tag = "2")]
    pub content: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Signal {
    #[prost(int32, tag = "1")]
    pub number: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Freeze {}

/// Who a container is from here on: itself, or a copy. Until all of it holds none of its processes goes on.
#[derive(Clone, PartialEq, Message)]
pub struct Thaw {
    /// The host's wall clock when this was sent, in ns since the epoch.
    #[prost(uint64, tag = "1")]
    pub realtime_ns: u64,
    /// Fresh entropy from the host: the kernel's generator starts anew from it.
    #[prost(bytes = "vec", tag = "2")]
    pub entropy: Vec<u8>,
    /// Empty: as before.
    #[prost(string, tag = "3")]
    pub hostname: String,
    /// In place of what the files of these names hold.
    #[prost(message, repeated, tag = "4")]
    pub files: Vec<EtcFile>,
    /// Another host listens than the one that said Freeze: all windows are as at the start.
    #[prost(bool, tag = "5")]
    pub copy: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Frozen {
    /// Empty if they stand still.
    #[prost(string, tag = "1")]
    pub failure: String,
    /// Bytes of stdin that the agent has and the process has not read yet.
    #[prost(uint32, tag = "2")]
    pub input_kept: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Thawed {}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct WindowSize {
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    #[prost(uint32, tag = "2")]
    pub columns: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Rlimit {
    /// The `RLIMIT_*` number of x86_64 Linux.
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    #[prost(uint64, tag = "2")]
    pub soft: u64,
    #[prost(uint64, tag = "3")]
    pub hard: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Tmpfs {
    /// Absolute.
    #[prost(string, tag = "1")]
    pub target: String,
    /// Mount options as in `--tmpfs /run:rw,size=64m`: flags are told from data by the agent.
    #[prost(string, tag = "2")]
    pub options: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// `VERSION` of the agent; the host refuses another.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The agent's package version.
    #[prost(string, tag = "2")]
    pub agent: String,
    /// `uname -r`.
    #[prost(string, tag = "3")]
    pub kernel: String,
    /// Where the agent's mailbox is in its memory.
    #[prost(uint64, tag = "4")]
    pub mailbox: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Started {
    /// From Start's arrival to the mounts being in place, and to the process running, in µs of the guest's clock.
    #[prost(uint64, tag = "1")]
    pub mounts_us: u64,
    #[prost(uint64, tag = "2")]
    pub started_us: u64,
}

/// Why a container did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum FailedKind {
    /// Our own failure: exit code 125.
    Setup = 0,
    /// There is no such program: 127.
    NotFound = 1,
    /// It can't be executed: 126.
    NotExecutable = 2,
    /// The user or group is not in the image's /etc/passwd or /etc/group: 125.
    NoSuchUser = 3,
}

#[derive(Clone, PartialEq, Message)]
pub struct Failed {
    #[prost(enumeration = "FailedKind", tag = "1")]
    pub kind: i32,
    /// What was being done to what, and the cause: `cannot mount /proc: Operation not permitted`.
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ack {}

/// How the process ended: `code` if it exited, else `signal`.
#[derive(Clone, PartialEq, Message)]
pub struct Exited {
    #[prost(int32, optional, tag = "1")]
    pub code: Option<i32>,
    #[prost(int32, optional, tag = "2")]
    pub signal: Option<i32>,
    /// The guest's kernel killed it for want of memory.
    #[prost(bool, tag = "3")]
    pub out_of_memory: bool,
}
