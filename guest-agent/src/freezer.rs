// SPDX-License-Identifier: Apache-2.0
//! Holding the container's processes still while the machine is saved, and making a copy somebody else.
//!
//! ```text
//!   prepare: /run is the control groups' root, the agent moves into /run/container; what it starts is born there
//!   freeze:  the agent moves out, the group is frozen, and is waited for until it is
//!   renew:   entropy, clock, host name, files, in that order, while nobody's code runs
//!   thaw:    the group goes on
//! ```
//!
//! That the agent goes in before and comes out after costs a container's start nothing, and no process is ever outside.

use crate::failure::{Doing, Failure};
use crate::machine;
use isopod_protocol::message::{EtcFile, Thaw};
use isopod_sys::process::Child;
use isopod_sys::process::machine::add_entropy;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, ftruncate, mkdir, open, openat2};
use rustix::io::{Errno, pread, write};
use rustix::mount::{MountFlags, mount};
use rustix::system::sethostname;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use rustix::time::{ClockId, Timespec as Time, clock_settime};
use std::os::fd::{AsFd, OwnedFd};

const GROUPS: &str = "/run";
const GROUP: &str = "/run/container";
/// Looks at `cgroup.events`, each at most this long apart.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// The host waits for 10 s at least.
const LOOKS: u32 = 40;
/// Bytes that `cgroup.events` may have; it has some thirty.
const EVENTS: usize = 256;

/// The container's control group.
#[derive(Debug)]
pub(crate) struct Freezer {
    outside: OwnedFd,
    freeze: OwnedFd,
    events: OwnedFd,
}

impl Freezer {
    /// Makes the group and takes this process into it, before it has children.
    pub(crate) fn prepare() -> Result<Self, Failure> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("cgroup2", GROUPS, "cgroup2", flags, None).doing("mount", GROUPS)?;
        mkdir(GROUP, Mode::RWXU).doing("make", GROUP)?;
        let write_only = |path: &str| file(path, OFlags::WRONLY);
        put(&write_only("/run/container/cgroup.procs")?, b"0").doing("enter", GROUP)?;
        Ok(Self {
            outside: write_only("/run/cgroup.procs")?,
            freeze: write_only("/run/container/cgroup.freeze")?,
            events: file("/run/container/cgroup.events", OFlags::RDONLY)?,
        })
    }

    /// Returns when every process of the container stands still; if not all do, they all go on.
    pub(crate) fn freeze(&self) -> Result<(), Failure> {
        put(&self.outside, b"0").doing("leave", GROUP)?;
        let frozen = self.until_frozen();
        if frozen.is_err() {
            self.thaw()?;
        }
        frozen
    }

    fn until_frozen(&self) -> Result<(), Failure> {
        put(&self.freeze, b"1").doing("freeze", GROUP)?;
        for _ in 0..LOOKS {
            if self.is_frozen()? {
                return Ok(());
            }
            let mut fds = [PollFd::new(&self.events, PollFlags::PRI)];
            let _ = poll(&mut fds, Some(&LOOK));
        }
        Err(Failure::setup("the container's processes did not stand still within 4 s"))
    }

    pub(crate) fn thaw(&self) -> Result<(), Failure> {
        put(&self.freeze, b"0").doing("thaw", GROUP)
    }

    fn is_frozen(&self) -> Result<bool, Failure> {
        let mut buf = [0; EVENTS];
        let n = pread(&self.events, &mut buf, 0).doing("look at", GROUP)?;
        Ok(buf[..n].split(|b| *b == b'\n').any(|line| line == b"frozen 1"))
    }
}

/// Makes this machine the one the host says it is. Nothing but the agent runs.
pub(crate) fn renew(thaw: &Thaw, process: &Child) -> Result<(), Failure> {
    check_entropy(&thaw.entropy)?;
    let random = machine::urandom().doing("open", "/dev/urandom")?;
    add_entropy(random.as_fd(), &thaw.entropy).doing("feed", "the kernel's entropy pool")?;
    set_clock(thaw.realtime_ns).doing("set", "the clock")?;
    if !thaw.hostname.is_empty() {
        move_into_thread_name_spaces(
            process.pidfd.as_fd(),
            ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
        )
        .doing("enter", "the container's host name")?;
        sethostname(thaw.hostname.as_bytes()).doing("set", "the host name")?;
    }
    if !thaw.files.is_empty() {
        machine::mount_proc();
        let path = format!("/proc/{}/root", process.pid.as_raw_nonzero());
        let root = file(&path, OFlags::PATH | OFlags::DIRECTORY)?;
        for file in &thaw.files {
            match rewrite(&root, file) {
                // The container has put something else in its place, which is its own; or its root is read-only, and
                // what is there is the image's.
                Ok(())
                | Err(
                    Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::ROFS,
                ) => {}
                Err(error) => return Err(error).doing("rewrite", &file.path),
            }
        }
    }
    Ok(())
}

/// What the generator of a machine that may be a copy begins anew from must be new.
pub(crate) fn check_entropy(entropy: &[u8]) -> Result<(), Failure> {
    const LEAST: usize = 32;
    if entropy.len() < LEAST {
        return Err(Failure::setup("the host sent too little entropy"));
    }
    Ok(())
}

pub(crate) fn set_clock(realtime_ns: u64) -> Result<(), Errno> {
    const NS: u64 = 1_000_000_000;
    if realtime_ns == 0 {
        return Ok(());
    }
    let part = |n: u64| i64::try_from(n).map_err(|_| Errno::INVAL);
    let time = Time { tv_sec: part(realtime_ns / NS)?, tv_nsec: part(realtime_ns % NS)? };
    clock_settime(ClockId::Realtime, time)
}

/// Paths are looked up in the container's root and nowhere else, whatever links it has made.
fn rewrite(root: &OwnedFd, new: &EtcFile) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(root, new.path.as_str(), flags, Mode::empty(), resolve)?;
    // An empty one says that there is to be none.
    if fstat(&file)?.st_size == 0 {
        return Ok(());
    }
    ftruncate(&file, 0)?;
    put(&file, &new.content)
}

fn file(path: &str, flags: OFlags) -> Result<OwnedFd, Failure> {
    open(path, flags | OFlags::CLOEXEC, Mode::empty()).doing("open", path)
}

fn put(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        bytes = &bytes[write(file, bytes)?..];
    }
    Ok(())
}
