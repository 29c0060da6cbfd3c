// SPDX-License-Identifier: Apache-2.0
//! `system prune`: what nobody needs, of everything.
//!
//! Templates that this isopod would not use are among it: nothing would ever start from them again, and what was started from
//! them goes on. Those it would use stay, and so do snapshots: the one is what makes a start fast, the other cannot be
//! made again.

use crate::container::records::Record;
use crate::error::Result;
use crate::{Engine, ImageFilters};
use isopod_image::{Pruned, Stray, on_disk};
use std::fs;

/// What went.
#[derive(Debug, Clone, Default)]
pub struct Reclaimed {
    pub containers: Vec<Record>,
    pub images: Pruned,
    /// Keys.
    pub templates: Vec<String>,
    pub stray: Stray,
    /// Of all of it.
    pub bytes: u64,
}

impl Engine {
    /// Removes containers that have ended, images without a name (or `all`) that nothing is of then, templates that this
    /// isopod would not use, and what killed processes have left.
    pub fn prune_system(&self, all: bool) -> Result<Reclaimed> {
        let mut gone = Reclaimed::default();
        for record in self.list(true)? {
            let bytes = on_disk(&self.records.folder(&record.id));
            // Somebody else may have removed it, or have it again.
            if record.state.is_over() && self.records.remove(&record.id)? {
                gone.bytes += bytes;
                gone.containers.push(record);
            }
        }
        gone.stray = self.images.sweep()?;
        for path in self.strays()? {
            let bytes = on_disk(&path);
            if fs::remove_file(&path).is_ok() {
                gone.stray.count += 1;
                gone.stray.bytes += bytes;
            }
        }
        gone.images = self.prune_images(all, &ImageFilters::default())?;
        for template in self.known_templates()?.into_iter().filter(|template| !template.usable) {
            self.templates.remove(&template.key)?;
            gone.bytes += template.size;
            gone.templates.push(template.key);
        }
        gone.bytes += gone.stray.bytes + gone.images.bytes;
        Ok(gone)
    }
}
