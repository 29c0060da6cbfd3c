// SPDX-License-Identifier: Apache-2.0
//! A machine's file (a template, a snapshot) at the door: what it says it is, and that it is whole.
//!
//! The head is hashed each time. The memory is hashed once for each state of the file (`memo`), not at each start: who
//! changes a byte of it later changes the file's times with it, and is found out at the next start.

use crate::error::{EngineError, Kind, Result};
use crate::memo::{self, Before};
use isopod_vmm::envelope::{self, Envelope, Identity, OpenError};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;

#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) file: File,
    pub(crate) envelope: Envelope,
}

/// `None` if there is none.
pub(crate) fn open(path: &Path, run_root: &Path, needed: &Identity) -> Result<Option<Sealed>> {
    let what = || format!("cannot use {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(EngineError::io(what())(e)),
    };
    let refused = |e| EngineError::new(Kind::Invalid, what()).because(e);
    let envelope = envelope::open(&file).map_err(refused)?;
    if let Some(mismatch) = envelope.identity.mismatch(needed) {
        return Err(EngineError::new(Kind::Conflict, what()).because(mismatch.to_string()));
    }
    whole(&file, &envelope, run_root).map_err(refused)?;
    Ok(Some(Sealed { file, envelope }))
}

/// Whether the memory in a file is what the head says, which was looked at before.
pub(crate) fn check_memory(file: &File, run_root: &Path) -> Result<()> {
    let refused = |e| EngineError::new(Kind::Invalid, "its file is damaged").because(e);
    let envelope = envelope::open(file).map_err(refused)?;
    whole(file, &envelope, run_root).map_err(refused)
}

fn whole(file: &File, envelope: &Envelope, run_root: &Path) -> StdResult<(), OpenError> {
    let memo = memo_of(envelope, run_root);
    if memo::recall::<bool>(&memo, file) != Some(true) {
        let before = Before::of(file);
        envelope.verify_memory(file)?;
        memo::remember(&memo, &before, true);
    }
    Ok(())
}

/// That this file was written by us a moment ago, digests and all.
pub(crate) fn vouch(file: &File, run_root: &Path) {
    if let Ok(envelope) = envelope::open(file) {
        memo::remember(&memo_of(&envelope, run_root), &Before::of(file), true);
    }
}

/// Removes a machine's file, and what is remembered of it as far as the file says its name.
pub(crate) fn remove(path: &Path, run_root: &Path) -> io::Result<()> {
    let envelope = File::open(path).ok().and_then(|file| envelope::open(&file).ok());
    fs::remove_file(path)?;
    if let Some(envelope) = envelope {
        let _ = fs::remove_file(memo_of(&envelope, run_root));
    }
    Ok(())
}

fn memo_of(envelope: &Envelope, run_root: &Path) -> PathBuf {
    run_root.join("whole").join(envelope.digest.to_string())
}
