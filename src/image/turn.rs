// SPDX-License-Identifier: Apache-2.0
//! Whose turn it is to fetch a blob: of any number of loads, in this process and others, one does and the others wait.
//!
//! ```text
//!   wait ──locked──► nothing said: fetch it, publish it, say so ──► let go
//!     ▲ │                └─ failed: let go, and it is the next one's turn
//!     │ └──locked──► said: it is there already
//!     └── the file was cleared away meanwhile
//! ```
//! What is said is that a blob was found to decompress to a layer. It holds until the image is listed, which says the same.

use crate::digest::Digest;
use crate::error::{During, Result};
use rustix::fs::{FlockOperation, flock, fstat};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// A signal ends the process anyway; this is for what another thread has found.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Most bytes that are read of what was said: a line is a size and a digest.
const SAID_MAX: u64 = 512;

#[derive(Debug)]
pub(crate) struct Turn(File);

impl Turn {
    /// Waits for it, and tells once if that is needed; none if it was called off.
    pub(crate) fn wait(
        path: &Path,
        called_off: &AtomicBool,
        mut waits: impl FnMut(),
    ) -> Result<Option<Self>> {
        let what = || format!("cannot lock {}", path.display());
        let mut told = false;
        while !called_off.load(Ordering::Relaxed) {
            let open = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
            let file = open.during(what())?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
                Ok(()) if fstat(&file).during(what())?.st_nlink > 0 => return Ok(Some(Self(file))),
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if !told {
                        waits();
                        told = true;
                    }
                    sleep(LOOK_AGAIN);
                }
                Err(e) => return Err(e).during(what()),
            }
        }
        Ok(None)
    }

    /// Whether somebody found a blob of this size to be this layer.
    pub(crate) fn says(&mut self, size: u64, diff_id: &Digest) -> bool {
        let mut text = String::new();
        let read = (&self.0).take(SAID_MAX).read_to_string(&mut text);
        read.is_ok() && text.lines().any(|line| line == said(size, diff_id))
    }

    pub(crate) fn say(&mut self, size: u64, diff_id: &Digest) {
        // If it is not said, the next one fetches it again.
        let _ = self.0.write_all(format!("{}\n", said(size, diff_id)).as_bytes());
    }

    /// Clears away what nobody has his turn at. The caller holds the store's lock, and no load is under way.
    pub(crate) fn sweep(folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).during(format_args!("cannot read {}", folder.display()))? {
            let path = entry.during(format_args!("cannot read {}", folder.display()))?.path();
            fs::remove_file(&path).during(format_args!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

fn said(size: u64, diff_id: &Digest) -> String {
    format!("{size} {diff_id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    #[test]
    fn one_has_its_turn_and_the_next_hears_what_it_said() {
        let dir = tempdir().unwrap();
        let (path, diff_id) = (dir.path().join("blob"), Digest::of(b"layer"));
        let on = AtomicBool::new(false);
        let mut first = Turn::wait(&path, &on, || {}).unwrap().unwrap();
        assert!(!first.says(7, &diff_id));
        first.say(7, &diff_id);
        let off = AtomicBool::new(false);
        let none = Turn::wait(&path, &off, || off.store(true, Ordering::Relaxed)).unwrap();
        assert!(none.is_none(), "it was another's turn");
        drop(first);
        let mut second = Turn::wait(&path, &on, || {}).unwrap().unwrap();
        assert!(second.says(7, &diff_id));
        drop(second);
        let mut third = Turn::wait(&path, &on, || {}).unwrap().unwrap();
        assert!(!third.says(8, &diff_id) && !third.says(7, &Digest::of(b"other")));
    }

    #[test]
    fn a_turn_at_a_file_that_was_cleared_away_is_none() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("blob");
        let on = AtomicBool::new(false);
        let first = Turn::wait(&path, &on, || {}).unwrap().unwrap();
        Turn::sweep(dir.path()).unwrap();
        let _second = Turn::wait(&path, &on, || {}).unwrap().unwrap();
        drop(first);
        let off = AtomicBool::new(false);
        assert!(Turn::wait(&path, &off, || off.store(true, Ordering::Relaxed)).unwrap().is_none());
    }
}
