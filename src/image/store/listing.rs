// SPDX-License-Identifier: Apache-2.0
//! `index.json`, which says what there is, and how it is changed in one step, on a full disk too.
//!
//! ```text
//!   more is listed:   `reserve` made large enough ─► written in the load's folder ─► put in the old one's place
//!   less is listed:   written over `reserve` ─► put in the old one's place ─► files nothing needs removed ─► new `reserve`
//! ```
//! A full disk is emptied by removing images, and to remove one is to write a listing without it. So there is a file with the
//! blocks that the next listing can need, `reserve`. A removal makes nothing new, no file, no folder, no block: it writes over
//! the reserve and renames it. The next reserve takes what the old listing and the removed files have given back.
//!
//! Where there is no reserve a removal was not ended: its files may still be there. Whoever changes the store next ends it,
//! and only then makes the reserve.

use super::{Place, Store, files_of};
use crate::content::{Staging, sync_folder};
use crate::error::{During, ImageError, Kind, Result};
use crate::limits::DOCUMENT_MAX;
use crate::manifest::Listing;
use crate::strict;
use crate::turn::Turn;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

const INDEX: &str = "index.json";
const RESERVE: &str = "reserve";
/// Files are given room by the block.
const BLOCK: u64 = 4096;

impl Store {
    pub(super) fn listing(&self) -> Result<Listing> {
        let path = self.path(INDEX);
        let bytes = fs::read(&path).during(format_args!("cannot read {}", path.display()))?;
        strict::parse("the store's index.json", &bytes)
    }

    /// Replaces the listing by one that may have more in it. The caller holds the lock.
    pub(super) fn put_listing(&self, staging: &Staging, listing: &Listing) -> Result<()> {
        let bytes = written(listing)?;
        // If there is none, files may have to be removed first, and some of those may be what is listed now.
        if self.path(RESERVE).exists() {
            self.fill_reserve(bytes.len() as u64).during("cannot keep room for the next index.json")?;
        }
        self.put(staging, INDEX, &bytes)
    }

    /// Replaces the listing by one that has less in it, and removes the files that nothing needs then. The caller holds the
    /// lock, and has called `recover`.
    pub(super) fn put_shorter(&self, listing: &Listing) -> Result<()> {
        let bytes = written(listing)?;
        let reserve = self.path(RESERVE);
        let write = || -> io::Result<()> {
            let mut file = open(self)?;
            file.write_all(&bytes)?;
            file.set_len(bytes.len() as u64)?;
            file.sync_all()?;
            fs::rename(&reserve, self.path(INDEX))
        };
        write().during("cannot write index.json")?;
        sync_folder(self.root())?;
        self.end_removal(bytes.len() as u64)
    }

    /// Ends what others were killed in: loads, and a removal. The turns are cleared away if no load is under way but `own`.
    /// The caller holds the lock.
    pub(super) fn recover(&self, own: usize) -> Result<()> {
        let unended = !self.path(RESERVE).exists();
        let swept = Staging::sweep(&self.path("tmp"))?;
        if swept.alive <= own {
            Turn::sweep(&self.path("turns"))?;
        }
        // A dead load may have published some of its files.
        if swept.dead > 0 || unended {
            self.remove_unlisted()?;
        }
        let len = fs::metadata(self.path(INDEX)).during("cannot look at index.json")?.len();
        // It is for the next removal, and not worth failing for: whoever comes next looks at it again.
        let _ = self.fill_reserve(len);
        Ok(())
    }

    pub(super) fn make_reserve(&self) -> Result<()> {
        self.fill_reserve(BLOCK).during("cannot keep room for the next index.json")
    }

    /// Replaces one of the store's own documents.
    pub(super) fn put(&self, staging: &Staging, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = staging.create_file(name)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).during(format_args!("cannot write {name}"))?;
        staging.replace(name, &self.path(name))?;
        sync_folder(self.root())
    }

    fn end_removal(&self, len: u64) -> Result<()> {
        self.remove_unlisted()?;
        // As in `recover`; who took the room that was there has it.
        let _ = self.fill_reserve(len);
        Ok(())
    }

    /// Sees to it that the reserve has blocks for so many bytes.
    fn fill_reserve(&self, len: u64) -> io::Result<()> {
        let len = len.next_multiple_of(BLOCK);
        let mut file = open(self)?;
        let about = file.metadata()?;
        if about.len() >= len && about.blocks() * 512 >= len {
            return Ok(());
        }
        match fallocate(&file, FallocateFlags::empty(), 0, len) {
            // Some file systems only promise by being written to.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                file.write_all(&vec![0; usize::try_from(len).unwrap_or(0)])?;
                file.sync_all()
            }
            result => Ok(result?),
        }
    }

    /// Removes the files no listed image needs.
    pub(super) fn remove_unlisted(&self) -> Result<()> {
        let mut needed = BTreeSet::new();
        for descriptor in self.listing()?.manifests {
            // What an image needs that cannot be read nobody knows: until it is removed or repaired, all is kept.
            let Ok(manifest) = self.manifest(&descriptor.digest) else { return Ok(()) };
            needed.extend(files_of(descriptor.digest, &manifest).into_iter().map(Place::path));
        }
        for folder in Place::FOLDERS {
            for (path, name) in self.entries(folder)? {
                if !needed.contains(&name) {
                    fs::remove_file(path).during(format_args!("cannot remove {name}"))?;
                }
            }
        }
        Ok(())
    }
}

fn open(store: &Store) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).open(store.path(RESERVE))
}

fn written(listing: &Listing) -> Result<Vec<u8>> {
    let bytes =
        serde_json::to_vec(listing).map_err(|e| ImageError::invalid("cannot write index.json").because(e))?;
    if bytes.len() as u64 > DOCUMENT_MAX {
        return Err(ImageError::new(Kind::TooLarge, "there are too many images"));
    }
    Ok(bytes)
}
