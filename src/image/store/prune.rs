// SPDX-License-Identifier: Apache-2.0
//! Many images removed at once, and what loads that were killed have left.

use super::{Removed, Store, Stray, Summary, reference_of};
use crate::digest::Digest;
use crate::error::Result;
use rustix::fs::FlockOperation;
use std::collections::{BTreeMap, BTreeSet};

/// What went, and what that freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    pub images: Vec<Removed>,
    pub bytes: u64,
}

impl Store {
    /// Removes the images that `goes` says so of, under each of their names. Who has one open keeps it. It needs no
    /// room on the disk.
    pub fn prune(&self, goes: &mut dyn FnMut(&Summary) -> bool) -> Result<Pruned> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        self.recover(0)?;
        let kept: BTreeSet<Digest> =
            self.summaries()?.iter().filter(|image| !goes(image)).map(|image| image.digest).collect();
        let mut listing = self.listing()?;
        let mut gone: BTreeMap<Digest, Removed> = BTreeMap::new();
        for descriptor in listing.manifests.extract_if(.., |d| !kept.contains(&d.digest)) {
            let digest = descriptor.digest;
            let new = || Removed { untagged: Vec::new(), deleted: Some(digest) };
            gone.entry(digest).or_insert_with(new).untagged.extend(reference_of(&descriptor));
        }
        if gone.is_empty() {
            return Ok(Pruned::default());
        }
        let before = self.bytes();
        self.put_shorter(&listing)?;
        Ok(Pruned { images: gone.into_values().collect(), bytes: before.saturating_sub(self.bytes()) })
    }

    /// Removes what leads nowhere.
    pub fn remove_strays(&self) -> Result<Stray> {
        let stray = self.usage(&|_| true)?.stray;
        if stray.count > 0 {
            let _lock = self.lock(FlockOperation::LockExclusive)?;
            self.recover(0)?;
            // A load under way holds what it has published, and publishes it again.
            self.remove_unlisted()?;
        }
        Ok(stray)
    }
}
