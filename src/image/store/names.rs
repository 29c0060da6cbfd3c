// SPDX-License-Identifier: Apache-2.0
//! What images here are called: names given and taken away, and with the last one the image.

use super::{Named, Store, list, reference_of};
use crate::digest::Digest;
use crate::error::{ImageError, Kind, Result};
use crate::manifest::{Descriptor, REF_NAME};
use crate::reference::Reference;
use rustix::fs::FlockOperation;

/// What a removal has removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    pub untagged: Vec<Reference>,
    /// The image, if nothing leads to it any more.
    pub deleted: Option<Digest>,
}

impl Store {
    /// Gives an image one more name, which another image loses if it had it.
    pub fn tag(&self, asked: &str, name: &Reference) -> Result<()> {
        if name.digest().is_some() {
            return Err(ImageError::invalid(format_args!(
                "`{name}` names an image by its digest: it cannot be given"
            )));
        }
        let staging = self.stage()?;
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let (_, digest) = self.find(asked)?;
        let mut listing = self.listing()?;
        let Some(found) = listing.manifests.iter().find(|d| d.digest == digest) else { return Ok(()) };
        let mut descriptor = found.clone();
        descriptor.annotations.remove(REF_NAME);
        list(&mut listing.manifests, &Named { reference: Some(name.clone()), descriptor });
        self.within_room(|| self.put_listing(&staging, &listing))
    }

    /// Takes a name away, and the image with its last one. Asked for by its digest an image goes with its name, and with
    /// all of them only if that is `force`d. `may_go` is asked before an image is removed, and not for a name. Who has the
    /// image open keeps it. It needs no room on the disk.
    pub fn remove(
        &self,
        asked: &str,
        force: bool,
        may_go: &mut dyn FnMut(&Digest) -> bool,
    ) -> Result<Removed> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        self.recover(0)?;
        let (found, digest) = self.find(asked)?;
        let mut listing = self.listing()?;
        let (of_it, mut others): (Vec<Descriptor>, Vec<_>) =
            listing.manifests.into_iter().partition(|d| d.digest == digest);
        let named = asked.parse::<Reference>().ok().filter(|asked| found.as_ref() == Some(asked));
        if named.is_none() && of_it.len() > 1 && !force {
            let names: Vec<_> = of_it.iter().filter_map(reference_of).map(|name| name.to_string()).collect();
            let what = format!("the image has several names: {}", names.join(", "));
            return Err(ImageError::new(Kind::InUse, what));
        }
        let goes = |d: &Descriptor| named.is_none() || reference_of(d) == named;
        let (gone, kept): (Vec<_>, Vec<_>) = of_it.into_iter().partition(goes);
        let deleted = kept.is_empty().then_some(digest);
        if deleted.is_some_and(|digest| !may_go(&digest)) {
            return Err(ImageError::new(Kind::InUse, "a container is of the image"));
        }
        others.extend(kept);
        listing.manifests = others;
        self.put_shorter(&listing)?;
        Ok(Removed { untagged: gone.iter().filter_map(reference_of).collect(), deleted })
    }
}
