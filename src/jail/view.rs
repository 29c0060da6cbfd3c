// SPDX-License-Identifier: Apache-2.0
//! A folder seen by itself: what is opened through it belongs to no place on the host, and does not tell where it was.
//!
//! A descriptor names its file (`/proc/PID/fd`), and its mount. Through a copy of the folder's mount that is nowhere, the
//! name begins at the folder, and there is nothing above it.

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A folder to open files in. Without root it is the folder itself.
///
/// Dropping it waits until no processor looks at the mount any more (an RCU grace period, 0.1 to 0.4 ms): a thing to be done
/// when nobody waits for what was opened.
#[derive(Debug)]
pub struct View(OwnedFd);

impl View {
    pub fn of(folder: &Path) -> io::Result<Self> {
        let clone =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let itself =
            || openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        match open_tree(CWD, folder, clone) {
            Err(Errno::PERM) => Ok(Self(itself()?)),
            tree => Ok(Self(tree?)),
        }
    }

    /// A file below it, for reading.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat(self.0.as_fd(), name, flags, Mode::empty())?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::geteuid;
    use std::fs;
    use std::os::fd::AsRawFd;
    use tempfile::tempdir;

    #[test]
    fn what_is_opened_in_a_view_does_not_tell_where_it_was() {
        let folder = tempdir().unwrap();
        fs::write(folder.path().join("disk"), "content").unwrap();
        let file = View::of(folder.path()).unwrap().open("disk").unwrap();
        let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let shown =
            if geteuid().is_root() { Path::new("/disk").to_owned() } else { folder.path().join("disk") };
        assert_eq!((name, io::read_to_string(file).unwrap().as_str()), (shown, "content"));
    }
}
