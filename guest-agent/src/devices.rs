// SPDX-License-Identifier: Apache-2.0
//! The container's /dev: a folder of the writable layer's tmpfs, made before the root is entered and bound into it.

use crate::failure::{Doing, Failure};
use crate::places::{with_file, with_folder};
use crate::root::mount_over;
use isopod_sys::process::machine::add_entropy;
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mkdir, mknodat, open, symlink};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind};
use std::mem::forget;
use std::os::fd::AsFd;

/// What the OCI runtime specification asks for, as /dev of the old tree, which is `dev` from the working directory.
const NODES: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("pts/ptmx", "dev/ptmx"),
];

/// Makes the folder and what is in it. The umask is 0.
pub(crate) fn make(entropy: &[u8]) -> Result<(), Failure> {
    let folder = Mode::from_raw_mode(0o755);
    for path in ["dev", "dev/pts", "dev/shm", "dev/mqueue"] {
        mkdir(path, folder).doing("make", path)?;
    }
    for (path, major, minor) in NODES {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, path, FileType::CharacterDevice, mode, makedev(major, minor)).doing("make", path)?;
    }
    for (target, path) in LINKS {
        symlink(target, path).doing("make", path)?;
    }
    if !entropy.is_empty() {
        let random = open("dev/urandom", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let random = random.doing("open", "dev/urandom")?;
        add_entropy(random.as_fd(), entropy).doing("feed", "the kernel's entropy pool")?;
        // Exec closes it: one system call less.
        forget(random);
    }
    Ok(())
}

/// Puts the folder in place, and the file systems that belong in it.
pub(crate) fn place() -> Result<(), Failure> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    with_folder(b"/dev", || mount_bind("dev", "/dev")).doing("mount", "/dev")?;
    mount_over("devpts", "/dev/pts", quiet, c"newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    mount_over("tmpfs", "/dev/shm", quiet | MountFlags::NODEV, c"mode=1777,size=65536k")?;
    match mount("mqueue", "/dev/mqueue", "mqueue", quiet | MountFlags::NODEV, None) {
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(error) => Err(error).doing("mount", "/dev/mqueue"),
    }
}

/// Makes the terminal what /dev/console is.
pub(crate) fn place_console() -> Result<(), Failure> {
    with_file(b"/dev/console", || mount_bind("/dev/pts/0", "/dev/console")).doing("mount", "/dev/console")
}
