// SPDX-License-Identifier: Apache-2.0
//! What pid 1 does to its machine: complain, count the dead, switch off. All of it off the usual path.

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open};
use rustix::io::{Errno, read, write};
use rustix::mm::{MlockAllFlags, mlockall, munlockall};
use rustix::mount::{MountFlags, mount};
use rustix::process::getpid;
use rustix::system::{RebootCommand, reboot};
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::process;
use std::time::Instant;

/// More than the agent uses on the way from its mailbox to the container's first byte.
const STACK_TO_COME: usize = 32 * 1024;
const HEAP_TO_COME: usize = 64 * 1024;

/// Puts a line into the kernel's log, which the host shows with `--console` and after a panic.
pub fn report(text: &str) {
    if !is_first() {
        return;
    }
    if let Ok(log) = device("/dev/kmsg", 11, OFlags::WRONLY) {
        let line = format!("<3>isopod agent: {}\n", text.replace('\n', " "));
        let _ = write(log, line.as_bytes());
    }
}

/// The kernel's random numbers, whatever the container has for them.
pub(crate) fn urandom() -> Result<OwnedFd, Errno> {
    device("/dev/urandom", 9, OFlags::RDONLY)
}

/// A memory device. The agent's /dev is empty: the container has its own, and hardly ever does the agent need one.
fn device(path: &str, minor: u32, flags: OFlags) -> Result<OwnedFd, Errno> {
    let _ = mount("tmpfs", "/dev", "tmpfs", MountFlags::NOSUID, None);
    let _ = mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(1, minor));
    open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

/// The agent's /proc is empty, too.
pub(crate) fn mount_proc() {
    let _ = mount("proc", "/proc", "proc", MountFlags::empty(), None);
}

/// Makes all memory of this process its own and present, and some to grow into: who goes on from here after a freeze
/// meets no page fault on the way.
pub(crate) fn make_present() {
    let _ = black_box([1_u8; STACK_TO_COME]);
    drop(black_box(vec![1_u8; HEAP_TO_COME]));
    black_box(Instant::now());
    if mlockall(MlockAllFlags::CURRENT).is_ok() {
        let _ = munlockall();
    }
}

/// Whether the kernel has killed a process for want of memory since the machine began. No group has to be made and
/// watched for that: the container has the machine for itself.
pub fn killed_for_memory() -> bool {
    mount_proc();
    let Ok(file) = open("/proc/vmstat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    let mut buf = [0; 16 * 1024];
    let mut len = 0;
    while let Ok(n) = read(&file, &mut buf[len..]) {
        if n == 0 {
            break;
        }
        len += n;
    }
    oom_kills(&buf[..len]) > 0
}

fn oom_kills(vmstat: &[u8]) -> u64 {
    let count = vmstat.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"oom_kill "));
    count.and_then(|n| str::from_utf8(n).ok()).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Switches the machine off. Nothing is flushed: there is nothing that outlives it.
pub fn power_off() -> ! {
    if is_first() {
        let _ = reboot(RebootCommand::PowerOff);
    }
    // Then at least nobody waits for us: the kernel panics without its first process, and the host sees that.
    process::abort()
}

/// Whether this is a machine's first process, and not one that somebody has started on a host to see what it does.
fn is_first() -> bool {
    getpid().as_raw_nonzero().get() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_for_memory_are_found_among_the_counters() {
        assert_eq!(oom_kills(b"nr_free_pages 12\noom_kill 3\noom_kill_x 9\n"), 3);
        assert_eq!(oom_kills(b"nr_free_pages 12\n"), 0);
        assert_eq!(oom_kills(b""), 0);
    }
}
