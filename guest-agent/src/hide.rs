// SPDX-License-Identifier: Apache-2.0
//! Masked and read-only paths.
//!
//! What hides a path comes from the old tree (`dev/null`, `empty` from the working directory), never from one that the image
//! could have prepared.

use crate::failure::{Doing, Failure};
use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_bind, mount_bind_recursive, mount_remount};

const EMPTY: &str = "empty";

/// Hides files behind /dev/null and folders behind an empty one. What is not there needs no hiding.
pub(crate) fn mask(paths: &[String]) -> Result<(), Failure> {
    let mut empty_is_there = false;
    for path in paths {
        match mount_bind("dev/null", path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR) => {
                if !empty_is_there {
                    mkdir(EMPTY, Mode::from_raw_mode(0o755)).doing("make", "an empty folder")?;
                    empty_is_there = true;
                }
                mask_folder(path).doing("mask", path)?;
            }
            Err(error) => return Err(error).doing("mask", path),
        }
    }
    Ok(())
}

fn mask_folder(path: &str) -> Result<(), Errno> {
    mount_bind(EMPTY, path)?;
    mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV, c"")
}

/// Makes paths read-only. What is not there cannot be written.
pub(crate) fn make_read_only(paths: &[String]) -> Result<(), Failure> {
    for path in paths {
        match mount_bind_recursive(path, path) {
            Ok(()) => mount_remount(path, read_only(path), c"").doing("make read-only", path)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error).doing("make read-only", path),
        }
    }
    Ok(())
}

/// A remount replaces all flags, so those which the kernel's file systems were mounted with are said again.
fn read_only(path: &str) -> MountFlags {
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    let kernels = path.starts_with("/proc/") || path.starts_with("/sys/");
    if kernels { flags | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC } else { flags }
}
