// SPDX-License-Identifier: Apache-2.0
//! Files on their way into the store, and what a load needs of those that are there.
//!
//! ```text
//!   temporary ──► written, checked, on disk ──settle──┐
//!                                                     ├──► held ──publish──► in its place too ──► the load's end
//!   in its place in the store ──────────────────hold──┘
//! ```
//! To hold a file is to have a hard link to it: what somebody removes from the store meanwhile is put back by the load
//! that needs it. Each load has a folder of its own with a lock on it. The kernel lets go of the lock when the process
//! dies, however it dies; whoever finds a folder whose lock is free removes it.

use crate::digest::{Digest, Hashing};
use crate::error::{During, ImageError, Kind, Result};
use crate::store::Place;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

const LOCK: &str = "lock";

/// The folder of one load; gone when this is.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: PathBuf,
    made: AtomicU32,
    _lock: File,
}

/// What a sweep found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Swept {
    /// Loads that died.
    pub(crate) dead: usize,
    /// Loads that are under way.
    pub(crate) alive: usize,
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
            return Ok(Self { dir, made: AtomicU32::new(0), _lock: lock });
        }
        Err(ImageError::invalid(format_args!("{} is full of unfinished loads", tmp.display())))
    }

    /// Removes what dead loads left. The caller holds the store's lock.
    pub(crate) fn sweep(tmp: &Path) -> Result<Swept> {
        let mut swept = Swept { dead: 0, alive: 0 };
        for entry in fs::read_dir(tmp).during(format_args!("cannot read {}", tmp.display()))? {
            let dir = entry.during(format_args!("cannot read {}", tmp.display()))?.path();
            let free = match File::open(dir.join(LOCK)) {
                Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
                Err(_) => true,
            };
            if free {
                match fs::remove_dir_all(&dir) {
                    // Its load has ended by itself meanwhile, the lock before the folder.
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    removed => removed.during(format_args!("cannot remove {}", dir.display()))?,
                }
                swept.dead += 1;
            } else {
                swept.alive += 1;
            }
        }
        Ok(swept)
    }

    /// A new file, which is gone again unless it is settled.
    pub(crate) fn temporary(&self) -> Result<Temporary> {
        let name = format!("new-{}", self.made.fetch_add(1, Ordering::Relaxed));
        let file = self.create_file(&name)?;
        Ok(Temporary { file, path: Some(self.dir.join(name)) })
    }

    pub(crate) fn create_file(&self, name: &str) -> Result<File> {
        create(&self.dir.join(name)).during(format_args!("cannot make a file in {}", self.dir.display()))
    }

    /// Forgets a file that turned out not to be needed.
    pub(crate) fn remove_file(&self, name: &str) {
        let _ = fs::remove_file(self.dir.join(name));
    }

    /// A file that was found right is what belongs to a place: down to the disk first, so that a name means contents and
    /// not a promise of them.
    pub(crate) fn settle(&self, mut file: Temporary, place: Place) -> Result<()> {
        file.file.sync_all().during("cannot write a file of the store")?;
        match file.path.take() {
            Some(path) => fs::rename(path, self.held(place)).during("cannot rename a file of the store"),
            None => Ok(()),
        }
    }

    /// Keeps what the store has in a place, whoever removes it there. False if it is not there.
    pub(crate) fn hold(&self, place: Place, at: &Path) -> Result<bool> {
        match fs::hard_link(at, self.held(place)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e).during(format_args!("cannot hold {}", at.display())),
        }
    }

    pub(crate) fn has(&self, place: Place) -> bool {
        self.held(place).exists()
    }

    pub(crate) fn open(&self, place: Place) -> Result<File> {
        File::open(self.held(place)).during(format_args!("cannot open a file in {}", self.dir.display()))
    }

    /// Gives what is held its place, unless the place is taken: what is there has the same digest. It stays held.
    pub(crate) fn publish(&self, place: Place, at: &Path) -> Result<()> {
        match fs::hard_link(self.held(place), at) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made.during(format_args!("cannot make {}", at.display())),
        }
    }

    /// Gives a finished file its name, whatever was there.
    pub(crate) fn replace(&self, name: &str, at: &Path) -> Result<()> {
        fs::rename(self.dir.join(name), at).during(format_args!("cannot make {}", at.display()))
    }

    fn held(&self, place: Place) -> PathBuf {
        self.dir.join(place.path().replace('/', "-"))
    }
}

/// A file that is nothing yet.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) file: File,
    path: Option<PathBuf>,
}

impl Temporary {
    /// Takes a place, whatever was there.
    pub(crate) fn supplant(mut self, at: &Path) -> Result<()> {
        self.file.sync_all().during("cannot write a file of the store")?;
        match self.path.take() {
            Some(path) => fs::rename(path, at).during(format_args!("cannot make {}", at.display())),
            None => Ok(()),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
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
        let what = format!("{digest} has {than} bytes than the {size} it should have");
        return Err(ImageError::new(Kind::Corrupt, what));
    }
    if found != *digest {
        let what = format!("the contents of {digest} have another digest, {found}");
        return Err(ImageError::new(Kind::Corrupt, what));
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
