// SPDX-License-Identifier: Apache-2.0
//! A file that has no name before it is whole: who dies while he writes it leaves nothing behind.
//!
//! ```text
//!   new ──► no name ── link ──► the name
//!    │         │ the name is taken              ▲
//!    │         ▼                                │ replaces what had it: there is always one of the two
//!    └─────► .new.<pid>.<n> ────── rename ──────┘
//!   the file system knows no unnamed files
//! ```
//!
//! A name that is free is had at once. One that is taken cannot be linked over, so the file gets a name for the moment, and
//! takes the other's place from there; who dies within that moment leaves a `.new.…` behind, as does anyone on a file
//! system that knows no unnamed files. It is never looked at again, and whoever cleans the folder may remove it.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::fs::{fsync, linkat, open, openat, renameat, renameat_with, unlinkat};
use rustix::io::{Errno, Result as SysResult};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names left by processes that had our id are stepped over, but not without end.
const MOST_TRIES: u32 = 1000;

#[derive(Debug)]
pub struct Unnamed {
    folder: OwnedFd,
    file: File,
    /// The name for the moment, which goes with this.
    fresh: Option<String>,
}

impl Unnamed {
    /// An empty file in `folder`, to read and write, with the permissions `mode` less the umask.
    pub fn new(folder: &Path, mode: u32) -> io::Result<Self> {
        let folder = open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match openat(&folder, ".", flags, Mode::from_raw_mode(mode)) {
            Ok(file) => Ok(Self { folder, file: file.into(), fresh: None }),
            // The second is what a kernel says that takes the flag for another.
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => Self::named(folder, mode),
            Err(error) => Err(error.into()),
        }
    }

    fn named(folder: OwnedFd, mode: u32) -> io::Result<Self> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let (fresh, file) = fresh(|name| openat(&folder, name, flags, Mode::from_raw_mode(mode)))?;
        Ok(Self { folder, file: file.into(), fresh: Some(fresh) })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name in the folder, in place of any other file of that name; on the disk, too. What is in the
    /// file is the caller's to sync before. After an error the file is gone, and the name is whose it was.
    pub fn link(mut self, name: &str) -> io::Result<File> {
        // A name of two parts would be one in another folder, which nobody syncs.
        if name.contains('/') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.fresh.is_none() {
            match self.link_as(name) {
                Ok(()) => return self.finished(),
                Err(Errno::EXIST) => self.fresh = Some(fresh(|name| self.link_as(name))?.0),
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(fresh) = &self.fresh {
            renameat(&self.folder, fresh, &self.folder, name)?;
            self.fresh = None;
        }
        self.finished()
    }

    /// As `link`, but a name that is taken stays whose it is: that is an error, `AlreadyExists`.
    pub fn link_new(mut self, name: &str) -> io::Result<File> {
        if name.contains('/') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match &self.fresh {
            None => self.link_as(name)?,
            Some(fresh) => renameat_with(&self.folder, fresh, &self.folder, name, RenameFlags::NOREPLACE)?,
        }
        self.fresh = None;
        self.finished()
    }

    fn finished(&self) -> io::Result<File> {
        fsync(&self.folder)?;
        self.file.try_clone()
    }

    /// By way of /proc, because linking a descriptor itself is a privilege.
    fn link_as(&self, name: &str) -> SysResult<()> {
        let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, file, &self.folder, name, AtFlags::SYMLINK_FOLLOW)
    }
}

impl AsFd for Unnamed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(fresh) = &self.fresh {
            // An error leaves what a death here would have left.
            let _ = unlinkat(&self.folder, fresh, AtFlags::empty());
        }
    }
}

/// Makes something under a name that nobody has.
fn fresh<T>(make: impl Fn(&str) -> SysResult<T>) -> io::Result<(String, T)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..MOST_TRIES {
        let name = format!(".new.{}.{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match make(&name) {
            Err(Errno::EXIST) => {}
            made => return Ok((name, made?)),
        }
    }
    Err(Errno::EXIST.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::{TempDir, tempdir, tempdir_in};

    /// On the disk and in memory.
    fn folders() -> [TempDir; 2] {
        [tempdir().unwrap(), tempdir_in("/dev/shm").unwrap()]
    }

    /// A file without a name, and one as a file system makes it that knows no such.
    fn both(folder: &Path, text: &[u8]) -> [Unnamed; 2] {
        let named = Unnamed::named(File::open(folder).unwrap().into(), 0o600).unwrap();
        let both = [Unnamed::new(folder, 0o600).unwrap(), named];
        both.iter().for_each(|one| one.file().write_all(text).unwrap());
        both
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn it_has_no_name_until_it_is_linked() {
        for folder in folders() {
            let file = Unnamed::new(folder.path(), 0o640).unwrap();
            file.file().write_all(b"whole").unwrap();
            assert_eq!(names(folder.path()), [""; 0]);
            file.link("it").unwrap();
            assert_eq!(names(folder.path()), ["it"]);
            assert_eq!(fs::read(folder.path().join("it")).unwrap(), b"whole");
            let mode = fs::metadata(folder.path().join("it")).unwrap().permissions().mode();
            assert_eq!(mode & 0o7737, 0o600);
        }
    }

    #[test]
    fn it_takes_the_place_of_another_and_leaves_nothing_else() {
        for folder in folders() {
            fs::write(folder.path().join("it"), "old").unwrap();
            for file in both(folder.path(), b"new") {
                file.link("it").unwrap();
                assert_eq!(fs::read(folder.path().join("it")).unwrap(), b"new");
            }
            assert_eq!(names(folder.path()), ["it"]);
        }
    }

    #[test]
    fn one_that_is_dropped_leaves_nothing() {
        for folder in folders() {
            drop(both(folder.path(), b"never"));
            assert_eq!(names(folder.path()), [""; 0]);
        }
    }

    #[test]
    fn a_name_it_cannot_have_is_an_error_and_leaves_nothing() {
        for folder in folders() {
            fs::create_dir(folder.path().join("folder")).unwrap();
            for name in ["folder", "folder/it", "..", "", "a\0b"] {
                for file in both(folder.path(), b"x") {
                    assert!(file.link(name).is_err(), "{name:?}");
                }
            }
            assert_eq!(names(folder.path()), ["folder"]);
        }
    }

    #[test]
    fn names_that_are_taken_are_stepped_over() {
        let (_, first) = fresh(|name| Ok(name.to_owned())).unwrap();
        let taken = |name: &str| if name.ends_with('7') { Ok(()) } else { Err(Errno::EXIST) };
        let (seventh, ()) = fresh(taken).unwrap();
        assert!(seventh.ends_with('7') && seventh != first);
        assert!(fresh(|_| Err::<(), _>(Errno::EXIST)).is_err());
    }

    #[test]
    fn a_folder_that_is_none_is_an_error() {
        let folder = tempdir().unwrap();
        assert!(Unnamed::new(&folder.path().join("missing"), 0o600).is_err());
    }
}
