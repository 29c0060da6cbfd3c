// SPDX-License-Identifier: Apache-2.0
//! How much room a store has: what cannot fit is refused before it is fetched, and who runs out of room is told how much
//! there was. What an image takes unpacked nobody knows beforehand.

use super::Store;
use crate::error::{ImageError, Kind, Result};
use rustix::fs::statvfs;
use std::error::Error;
use std::path::Path;

/// What was free when something began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    bytes: u64,
    /// What a file takes beside its bytes; none where they are not counted.
    files: Option<u64>,
}

impl Store {
    /// Refuses files of so many bytes together if there is no room for them.
    pub(crate) fn expect_room(&self, needed: u64) -> Result<()> {
        match Room::at(self.root()) {
            Some(room) if needed > room.bytes => Err(ImageError::new(
                Kind::NoSpace,
                format_args!(
                    "there is not enough space at {}: its layers alone have {needed} bytes, {} are free, \
                     {} are missing",
                    self.root().display(),
                    room.bytes,
                    needed - room.bytes
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Does what takes room, and says how much there was if it was too little.
    pub(super) fn within_room<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = Room::at(self.root());
        work().map_err(|error| match before {
            // One without a cause is of `expect_room`, which has said it.
            Some(room) if error.kind() == Kind::NoSpace && error.source().is_some() => {
                error.within(room.too_little(self.root()))
            }
            _ => error,
        })
    }
}

impl Room {
    fn at(path: &Path) -> Option<Self> {
        // A store that is about to be made is where the folder is that it will be in.
        let about = path.ancestors().find_map(|path| statvfs(path).ok())?;
        let files = (about.f_files > 0).then_some(about.f_ffree);
        Some(Self { bytes: about.f_bavail.saturating_mul(about.f_frsize), files })
    }

    fn too_little(self, root: &Path) -> String {
        let (bytes, root) = (self.bytes, root.display());
        match self.files {
            Some(files) => format!(
                "there is not enough space at {root}: {bytes} bytes and {files} files (inodes) were free, and more \
                 are needed"
            ),
            None => {
                format!("there is not enough space at {root}: {bytes} bytes were free, and more are needed")
            }
        }
    }
}
