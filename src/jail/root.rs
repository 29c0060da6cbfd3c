// SPDX-License-Identifier: Apache-2.0
//! An empty root: the host's files are not hidden but gone from the mount namespace.

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::process::{chdir, fchdir, pivot_root};
use std::io;

/// Makes a file system of one empty folder the root, in a mount namespace of this process's own, and takes all others away.
pub(crate) fn empty() -> io::Result<()> {
    // What happens here is not to happen in the namespace this one is a copy of.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("jail", "/", "tmpfs", flags, c"size=4k,nr_inodes=1,mode=555")?;
    // `/` is still the folder beneath it; from its parent, which is itself, one comes to what lies on top.
    let top = open("/..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    fchdir(&top)?;
    // The new root goes to where the old one was, and the old one on top of it (pivot_root(2)).
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(chdir("/")?)
}
