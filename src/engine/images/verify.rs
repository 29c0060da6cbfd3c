// SPDX-License-Identifier: Apache-2.0
//! `system verify`: whether the images are what they should be.

use super::{settings, translated};
use crate::Engine;
use crate::error::Result;
use isopod_image::{Damage, Progress};

impl Engine {
    /// Looks at every byte of every image, and mends what is damaged if that is asked for.
    pub fn verify(&self, repair: bool, progress: &dyn Progress) -> Result<Vec<Damage>> {
        let settings = repair.then(settings).transpose()?;
        self.images.store.verify(settings.as_ref(), progress).map_err(translated)
    }
}
