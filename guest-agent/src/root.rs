// SPDX-License-Identifier: Apache-2.0
//! The container's root: the image below, an overlay with a writable layer in memory above.
//!
//! ```text
//!   /image   the image, then the overlay on top of it, then (chroot, in the end pivot_root) the container's /
//!   /rw      a tmpfs: upper/ and work/ of the overlay, dev/ and the small files that are bound into the root
//!
//!   lay ──► enter (chroot) ──► mounts in the root ──► seal (out of the chroot, pivot_root, the old tree unmounted)
//! ```
//!
//! All of it happens in the container's mount namespace; the agent's sees none of it. The working directory is /rw until
//! the root is sealed, so that what is bound has short relative paths in the old tree while `/…` is in the new one.
//! The pivot has to wait: it leaves the old root stacked on the new one, and there `/..` would lead.

use crate::failure::{Doing, Failure};
use crate::places::{with_file, with_folder};
use isopod_protocol::message::{Container, EtcFile, Folder, ImageFolders, Tmpfs};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::fs::{chown, fchmod, fchown, futimens, mkdir, open, openat, setxattr, stat, utimensat};
use rustix::io::{Errno, write};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use rustix::process::{Gid, Uid, chdir, chroot, pivot_root, umask};
use std::ffi::{CStr, CString};
use std::mem::forget;
use std::os::fd::OwnedFd;

/// Something to mount.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem {
    pub source: &'static CStr,
    /// Empty if `source` is a path and `flags` say what to do with it.
    pub kind: &'static CStr,
    pub flags: MountFlags,
}

const IMAGE: &str = "/image";
const WRITABLE: &str = "/rw";
const ETC: &str = "upper/etc";

/// Mounts the image and the overlay. Afterwards the working directory is `WRITABLE` and the umask is 0.
pub(crate) fn lay(image: &FileSystem) -> Result<(), Failure> {
    lay_image(image)?;
    // The overlay's root has the upper folder's attributes: they must be those of the image's.
    let below = stat(IMAGE).doing("look at", "the image's root")?;
    make_upper(&below).doing("make", "the writable layer")?;
    lay_overlay()
}

fn lay_image(image: &FileSystem) -> Result<(), Failure> {
    mount(image.source, IMAGE, image.kind, image.flags, None).doing("mount", "the image")?;
    mount("tmpfs", WRITABLE, "tmpfs", MountFlags::NOSUID, c"mode=755").doing("mount", WRITABLE)?;
    chdir(WRITABLE).doing("enter", WRITABLE)?;
    umask(Mode::empty());
    Ok(())
}

fn lay_overlay() -> Result<(), Failure> {
    mkdir("work", Mode::RWXU).doing("make", "the overlay's work folder")?;
    let layers =
        c"lowerdir=/image,upperdir=upper,workdir=work,redirect_dir=on,index=off,metacopy=off,xino=off";
    mount("overlay", IMAGE, "overlay", MountFlags::empty(), layers).doing("mount", "the overlay")
}

/// What lies in the upper layer of a root that was laid before there was an image.
#[derive(Debug)]
pub(crate) struct Upper {
    etc: OwnedFd,
    /// In the order of the container's.
    files: Vec<OwnedFd>,
}

/// As `lay`, without looking at the image: what will be mounted on hides what the image has there, and the small files are
/// in /etc already, empty.
pub(crate) fn lay_blind(image: &FileSystem, files: &[EtcFile]) -> Result<Upper, Failure> {
    lay_image(image)?;
    let folder = Mode::from_raw_mode(0o755);
    for path in ["upper", "upper/dev", "upper/proc", "upper/sys", ETC] {
        mkdir(path, folder).doing("make", path)?;
    }
    for path in ["upper/dev", "upper/proc", "upper/sys"] {
        setxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty()).doing("set apart", path)?;
    }
    let etc = open(ETC, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let etc = etc.doing("open", ETC)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let make = |file: &EtcFile| {
        let name = file.path.strip_prefix("/etc/").filter(|name| !name.contains('/'));
        let name = name.ok_or_else(|| Failure::setup(format!("{} is not in /etc", file.path)))?;
        openat(&etc, name, flags, Mode::from_raw_mode(0o644)).doing("make", &file.path)
    };
    let files = files.iter().map(make).collect::<Result<_, _>>()?;
    lay_overlay()?;
    Ok(Upper { etc, files })
}

impl Upper {
    /// Makes the root that of this container, whose `image` says what the upper layer hides.
    pub(crate) fn dress(&self, container: &Container) -> Result<(), Failure> {
        for (copy, file) in self.files.iter().zip(&container.files) {
            put_content(copy, &file.content).doing("write", &file.path)?;
        }
        let Some(ImageFolders { root, etc }) = &container.image else {
            return Ok(());
        };
        let new_root = open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        dress_folder(&new_root.doing("open", "/")?, root).doing("dress", "/")?;
        dress_folder(&self.etc, etc).doing("dress", "/etc")
    }
}

/// Makes of a folder of root's, 0755, what it is in the image.
fn dress_folder(folder: &OwnedFd, like: &Folder) -> Result<(), Errno> {
    if (like.uid, like.gid) != (0, 0) {
        fchown(folder, Some(Uid::from_raw(like.uid)), Some(Gid::from_raw(like.gid)))?;
    }
    if like.mode != 0o755 {
        fchmod(folder, Mode::from_raw_mode(like.mode & 0o7777))?;
    }
    let time = Timespec { tv_sec: like.modified_s, tv_nsec: like.modified_ns.into() };
    futimens(folder, &Timestamps { last_access: time, last_modification: time })
}

fn make_upper(below: &Stat) -> Result<(), Errno> {
    mkdir("upper", Mode::from_raw_mode(below.st_mode & 0o7777))?;
    if (below.st_uid, below.st_gid) != (0, 0) {
        chown("upper", Some(Uid::from_raw(below.st_uid)), Some(Gid::from_raw(below.st_gid)))?;
    }
    let nanoseconds = i64::try_from(below.st_mtime_nsec).unwrap_or(0);
    let time = Timespec { tv_sec: below.st_mtime, tv_nsec: nanoseconds };
    utimensat(CWD, "upper", &Timestamps { last_access: time, last_modification: time }, AtFlags::empty())
}

/// Makes the overlay what absolute paths and symlinks are resolved in. The old tree is outside, at the working directory.
pub(crate) fn enter() -> Result<(), Failure> {
    chroot(IMAGE).doing("enter", "the root")
}

/// Leaves the old root behind for good; the working directory is the new one.
pub(crate) fn seal() -> Result<(), Failure> {
    // The working directory was never inside, so its parent is the way out.
    chroot("..").doing("leave", "the root")?;
    pivot_root(IMAGE, IMAGE).doing("change", "the root")?;
    unmount("..", UnmountFlags::DETACH).doing("leave", "the agent's root")?;
    chdir("/").doing("enter", "the root")
}

/// Makes the root read-only, where that was asked for: after the last folder was made in it.
pub(crate) fn close(container: &Container) -> Result<(), Failure> {
    if !container.read_only_root {
        return Ok(());
    }
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"").doing("make read-only", "the root")
}

/// Puts the host's small files over those of the image.
pub(crate) fn put_files(files: &[EtcFile]) -> Result<(), Failure> {
    for (n, file) in files.iter().enumerate() {
        let path = absolute(&file.path)?;
        let source = format!("file{n}");
        put_file(&source, path, &file.content).doing("put in place", path)?;
    }
    Ok(())
}

fn put_file(source: &str, path: &str, content: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let copy = open(source, flags, Mode::from_raw_mode(0o644))?;
    put_content(&copy, content)?;
    // Exec closes it: one system call less.
    forget(copy);
    with_file(path.as_bytes(), || mount_bind(source, path))
}

fn put_content(file: &OwnedFd, mut rest: &[u8]) -> Result<(), Errno> {
    while !rest.is_empty() {
        rest = &rest[write(file, rest)?..];
    }
    Ok(())
}

/// The kernel's own file systems. Devices are elsewhere, `/proc` comes last: its magic links lead anywhere.
pub(crate) fn mount_kernels() -> Result<(), Failure> {
    let hardened = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let read_only = hardened | MountFlags::RDONLY;
    mount_over("sysfs", "/sys", read_only, c"")?;
    // The folder comes with sysfs; a kernel without control groups has neither.
    match mount("cgroup2", "/sys/fs/cgroup", "cgroup2", read_only, None) {
        Ok(()) | Err(Errno::NODEV | Errno::NOENT) => {}
        Err(error) => return Err(error).doing("mount", "/sys/fs/cgroup"),
    }
    mount_over("proc", "/proc", hardened, c"")
}

/// Mounts a file system of this kind over a folder, which is made if the image lacks it.
pub(crate) fn mount_over(kind: &str, path: &str, flags: MountFlags, data: &CStr) -> Result<(), Failure> {
    with_folder(path.as_bytes(), || mount(kind, path, kind, flags, data)).doing("mount", path)
}

/// What `--tmpfs` asks for.
pub(crate) fn mount_tmpfs(wanted: &[Tmpfs]) -> Result<(), Failure> {
    for tmpfs in wanted {
        let (flags, data) = tmpfs_options(&tmpfs.options);
        let data = CString::new(data).doing("understand the options of", &tmpfs.target)?;
        mount_over("tmpfs", absolute(&tmpfs.target)?, flags, &data)?;
    }
    Ok(())
}

/// Docker's defaults, then each option in turn; what is no flag is for the file system to understand.
fn tmpfs_options(options: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut data: Vec<&str> = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" => flags -= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "suid" => flags -= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "dev" => flags -= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "exec" => flags -= MountFlags::NOEXEC,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "async" => flags -= MountFlags::SYNCHRONOUS,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

fn absolute(path: &str) -> Result<&str, Failure> {
    if path.starts_with('/') { Ok(path) } else { Err(Failure::setup(format!("{path} is no absolute path"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tmpfs_has_dockers_flags_unless_told_otherwise() {
        let hardened = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        assert_eq!(tmpfs_options(""), (hardened, String::new()));
        assert_eq!(tmpfs_options("rw,size=64m,mode=1777"), (hardened, "size=64m,mode=1777".into()));
        let (flags, data) = tmpfs_options("exec,ro,,uid=5");
        assert_eq!(flags, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY);
        assert_eq!(data, "uid=5");
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert!(absolute("etc/hosts").is_err());
        assert!(absolute("").is_err());
    }
}
