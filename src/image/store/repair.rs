// SPDX-License-Identifier: Apache-2.0
//! Files of the store made again: from what is here, and from the registry in an image's name.

use super::{Place, Store};
use crate::config::Platform;
use crate::content::{Staging, Temporary, check, sync_folder};
use crate::digest::{Digest, Hashing};
use crate::error::{During, ImageError, Kind, Result};
use crate::manifest::Descriptor;
use crate::progress::{LayerProgress, Progress};
use crate::reference::Reference;
use crate::registry::{Remote, Settings};
use crate::unpack::Unpacking;
use rustix::fs::FlockOperation;
use std::io::{self, Read};

/// Where an image came from, as far as its names tell.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    pub(super) image: Digest,
    pub(super) names: &'a [Reference],
    settings: Option<&'a Settings>,
    /// The registry that has it, once one was asked; or none that was.
    remote: Option<Option<Remote>>,
}

impl<'a> Origin<'a> {
    pub(super) fn new(image: Digest, names: &'a [Reference], settings: Option<&'a Settings>) -> Self {
        Self { image, names, settings, remote: None }
    }

    /// Fetches a blob again.
    pub(super) fn fetch(&mut self, blob: &Descriptor, staging: &Staging) -> Result<Temporary> {
        let again = staging.temporary()?;
        let copy = |remote: &Remote| -> Result<()> {
            let mut source = Hashing::new(remote.open(blob)?.take(blob.size.saturating_add(1)));
            io::copy(&mut source, &mut &again.file).during("cannot take it in")?;
            check(source, &blob.digest, blob.size)
        };
        let fetched = self.remote().and_then(copy);
        fetched.map(|()| again).map_err(|e| e.within(format_args!("cannot fetch {} again", blob.digest)))
    }

    /// The first registry that has the image. Who did not answer once is not asked again.
    fn remote(&mut self) -> Result<&Remote> {
        if self.remote.is_none() {
            let (found, error) = self.ask();
            self.remote = Some(found);
            if let Some(error) = error {
                return Err(error);
            }
        }
        let none = || ImageError::new(Kind::NotFound, "no registry of its names has the image");
        self.remote.as_ref().and_then(Option::as_ref).ok_or_else(none)
    }

    fn ask(&self) -> (Option<Remote>, Option<ImageError>) {
        let mut error = None;
        let Some(settings) = self.settings else { return (None, None) };
        for name in self.names {
            // Its tag may lead elsewhere by now.
            let exact = format!("{}/{}@{}", name.domain(), name.path(), self.image).parse();
            match exact.and_then(|exact: Reference| Remote::find(&exact, &Platform::host(), settings)) {
                Ok(remote) => return (Some(remote), None),
                Err(e) => error = Some(e),
            }
        }
        (None, error)
    }
}

/// What comes of a layer's blob: data and index.
pub(super) fn unpack_again(
    store: &Store,
    staging: &Staging,
    blob: &Descriptor,
    layer: &LayerProgress,
    progress: &dyn Progress,
) -> Result<[Temporary; 2]> {
    let made = [staging.temporary()?, staging.temporary()?];
    let mut source = store.open_at(Place::Blob(blob.digest))?;
    let unpacking = Unpacking::start(store.worker, store.limits, &made[0].file, &made[1].file)?;
    let unpacked = unpacking.read_all(&mut source, |n| {
        progress.layer_advanced(layer, n as u64);
        true
    });
    let (found, want) = (unpacked??, layer.diff_id);
    if found != want {
        return Err(ImageError::invalid(format_args!("decompressed, it is {found}, and not {want}")));
    }
    Ok(made)
}

/// Gives what was made again its place.
pub(super) fn put(store: &Store, again: Temporary, place: Place) -> Result<()> {
    let _lock = store.lock(FlockOperation::LockExclusive)?;
    let path = store.path(&place.path());
    again.supplant(&path)?;
    path.parent().map_or(Ok(()), sync_folder)
}
