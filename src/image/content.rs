// SPDX-License-Identifier: Apache-2.0
//! Files on their way into the store: written under `tmp/`, checked, made durable, and only then moved to their names.
//!
//! ```text
//!    create ──► files written and checked ──► sealed (on disk) ──► moved into place ──► folder removed
//!       └────────────── any failure: folder removed ──────────────┘
//! ```
//! Each load has a folder of its own with a lock on it. The kernel lets go of the lock when the process dies, however it
//! dies; whoever finds a folder whose lock is free removes it.

use crate::digest::{Digest, Hashing};
use crate::error::{During, ImageError, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

const LOCK: &str = "lock";

/// The folder of one load; gone when this is.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: PathBuf,
    _lock: File,
}

impl Staging {
    /// Makes a folder in `tmp`. The caller holds the store's lock, so that no sweep sees the folder before its lock is taken.
    pub(crate) fn create(tmp: &Path) -> Result<Self> {
        for n in 0..10_000u32 {
            let dir = tmp.join(format!("load-{}-{n}", process::id()));
            match make_folder(&dir) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e).during(format_args!("cannot make {}", dir.display())),
            }
            let lock = create(&dir.join(LOCK))
                .and_then(|lock| Ok(flock(&lock, FlockOperation::NonBlockingLockExclusive).map(|()| lock)?));
            let lock = lock.during(format_args!("cannot lock {}", dir.display()))?;
            return Ok(Self { dir, _lock: lock });
        }
        Err(ImageError::invalid(format_args!("{} is full of unfinished loads", tmp.display())))
    }

    /// Removes what dead loads left, and says whether there was any. The caller holds the store's lock.
    pub(crate) fn sweep(tmp: &Path) -> Result<bool> {
        let mut swept = false;
        for entry in fs::read_dir(tmp).during(format_args!("cannot read {}", tmp.display()))? {
            let dir = entry.during(format_args!("cannot read {}", tmp.display()))?.path();
            let free = match File::open(dir.join(LOCK)) {
                Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
                Err(_) => true,
            };
            if free {
                fs::remove_dir_all(&dir).during(format_args!("cannot remove {}", dir.display()))?;
                swept = true;
            }
        }
        Ok(swept)
    }

    pub(crate) fn create_file(&self, name: &str) -> Result<File> {
        create(&self.dir.join(name)).during(format_args!("cannot make a file in {}", self.dir.display()))
    }

    pub(crate) fn open_file(&self, name: &str) -> Result<File> {
        File::open(self.dir.join(name)).during(format_args!("cannot open a file in {}", self.dir.display()))
    }

    /// Forgets a file that turned out not to be needed.
    pub(crate) fn remove_file(&self, name: &str) {
        let _ = fs::remove_file(self.dir.join(name));
    }

    /// Gives a finished file its place, unless the place is taken: what is there has the same digest.
    pub(crate) fn publish(&self, name: &str, place: &Path) -> Result<()> {
        if place.exists() {
            self.remove_file(name);
            return Ok(());
        }
        self.replace(name, place)
    }

    /// Gives a finished file its place, whatever was there.
    pub(crate) fn replace(&self, name: &str, place: &Path) -> Result<()> {
        fs::rename(self.dir.join(name), place).during(format_args!("cannot make {}", place.display()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A folder nobody else may look into, whatever the umask.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .during(format_args!("cannot write {} to disk", path.display()))
}

/// A stream that must have this length and digest, read to its end.
pub(crate) fn read_checked(source: impl Read, digest: &Digest, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut source = Hashing::new(source.take(size.saturating_add(1)));
    source.read_to_end(&mut bytes).during(format_args!("cannot read {digest}"))?;
    check(source, digest, size)?;
    Ok(bytes)
}

/// Whether what came through, if all of it did, is what was promised.
pub(crate) fn check<R>(source: Hashing<R>, digest: &Digest, size: u64) -> Result<()> {
    check_found(source.finish(), digest, size)
}

pub(crate) fn check_found((found, len): (Digest, u64), digest: &Digest, size: u64) -> Result<()> {
    if len != size {
        let than = if len > size { "more" } else { "fewer" };
        return Err(ImageError::invalid(format_args!(
            "{digest} has {than} bytes than the {size} it should have"
        )));
    }
    if found != *digest {
        return Err(ImageError::invalid(format_args!(
            "the contents of {digest} have another digest, {found}"
        )));
    }
    Ok(())
}

/// Writes what passes through to a file too.
#[derive(Debug)]
pub(crate) struct Tee<R, W> {
    source: R,
    copy: W,
}

impl<R, W> Tee<R, W> {
    pub(crate) fn new(source: R, copy: W) -> Self {
        Self { source, copy }
    }

    pub(crate) fn into_copy(self) -> W {
        self.copy
    }
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buf)?;
        self.copy.write_all(&buf[..n])?;
        Ok(n)
    }
}
