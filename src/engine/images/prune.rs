// SPDX-License-Identifier: Apache-2.0
//! `image prune`: images that nobody needs, by what needs them.

use super::{ImageFilters, Images, damaged};
use crate::Engine;
use crate::error::Result;
use isopod_image::{Digest, Pruned, Stray, Usage};
use std::collections::BTreeSet;

impl Engine {
    /// Removes images without a name, or `all`, that no container and no snapshot is of.
    pub fn prune_images(&self, all: bool, filters: &ImageFilters) -> Result<Pruned> {
        self.images.prune(all, filters, &self.needed_images()?)
    }

    /// Of what images there are containers, ended ones too, and snapshots.
    pub(crate) fn needed_images(&self) -> Result<BTreeSet<String>> {
        let containers = self.records.list()?.into_iter().map(|record| record.image_digest);
        let snapshots = self.snapshots.list()?.into_iter().map(|snapshot| snapshot.image_digest);
        Ok(containers.chain(snapshots).collect())
    }
}

impl Images {
    pub(crate) fn prune(
        &self,
        all: bool,
        filters: &ImageFilters,
        needed: &BTreeSet<String>,
    ) -> Result<Pruned> {
        let pruned = self.store.prune(&mut |image| {
            (all || image.reference.is_none())
                && filters.fit(image)
                && !needed.contains(&image.digest.to_string())
        });
        pruned.map_err(damaged)
    }

    /// What the images take of the disk.
    pub(crate) fn usage(&self, needed: &BTreeSet<String>) -> Result<Usage> {
        self.store.usage(&|digest: &Digest| needed.contains(&digest.to_string())).map_err(damaged)
    }

    /// Removes what loads that were killed have left.
    pub(crate) fn sweep(&self) -> Result<Stray> {
        self.store.remove_strays().map_err(damaged)
    }
}
