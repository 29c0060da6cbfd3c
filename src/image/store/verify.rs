// SPDX-License-Identifier: Apache-2.0
//! Whether what is in the store is what it should be.
//!
//! ```text
//!   manifest ─► configuration ─► each layer: blob ─► unpacked again: data, index ─► all: merged again
//!      └──────── each held against its digest ──────┘          └─── byte for byte ───────┘
//! ```
//! No digest of data and indexes is kept, for who damages the one may damage the other: they are made again from the blob,
//! which is held against its digest, and compared. What depends on something that is damaged and stays so is not looked at.

use super::repair::{Origin, put, unpack_again};
use super::{Place, Store, reference_of};
use crate::content::{Staging, Temporary, check};
use crate::digest::{Digest, Hashing};
use crate::error::{During, ImageError, Kind, Result};
use crate::load::merge_layers;
use crate::manifest::Descriptor;
use crate::progress::{LayerProgress, Progress};
use crate::reference::Reference;
use crate::registry::Settings;
use rustix::fs::FlockOperation;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};

/// Of a comparison.
const CHUNK: usize = 128 << 10;

/// What of an image can be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Manifest,
    Configuration,
    /// As it came.
    Layer,
    /// The contents of its files.
    LayerData,
    /// Their names and attributes.
    LayerIndex,
    /// Those of all layers together.
    ImageIndex,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Of the image's manifest.
    pub image: Digest,
    pub names: Vec<Reference>,
    pub part: Part,
    /// Of the part; of what came of a layer, the layer's.
    pub digest: Digest,
    pub why: String,
    pub repair: Repair,
}

/// What was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    NotAsked,
    Done,
    /// Why not.
    Failed(String),
}

impl Store {
    /// Looks at every byte of every image; with `repair`, makes again what can be made again, and asks the registry in an
    /// image's name for the rest.
    pub fn verify(&self, repair: Option<&Settings>, progress: &dyn Progress) -> Result<Vec<Damage>> {
        let staging = {
            // Whatever is damaged, there is a place for what is made again: nothing is swept before.
            let _lock = self.lock(FlockOperation::LockExclusive)?;
            Staging::create(&self.path("tmp"))?
        };
        let mut verify = Verify {
            store: self,
            staging: &staging,
            repair,
            progress,
            layers: BTreeMap::new(),
            found: Vec::new(),
        };
        for (descriptor, names) in self.listed()?.into_values() {
            let mut origin = Origin::new(descriptor.digest, &names, repair);
            match self.within_room(|| verify.image(&mut origin, &descriptor)) {
                // That is no damage, and whatever else is looked at would meet it too.
                Err(e) if e.kind() == Kind::NoSpace => return Err(e),
                Err(why) => drop(verify.note(&origin, (Part::Manifest, descriptor.digest), &why, None)),
                Ok(()) => {}
            }
        }
        let mut found = verify.found;
        // What was removed meanwhile has nothing wrong any more.
        let still = self.listed()?;
        found.retain(|damage| still.contains_key(&damage.image));
        Ok(found)
    }

    /// Each image with its names.
    fn listed(&self) -> Result<BTreeMap<Digest, (Descriptor, Vec<Reference>)>> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let mut images = BTreeMap::new();
        for descriptor in self.listing()?.manifests {
            let name = reference_of(&descriptor);
            let (_, names) = images.entry(descriptor.digest).or_insert_with(|| (descriptor, Vec::new()));
            names.extend(name);
        }
        Ok(images)
    }

    /// A blob that is held against its digest.
    fn check_blob(&self, blob: &Descriptor) -> Result<()> {
        let mut source = Hashing::new(self.open_at(Place::Blob(blob.digest))?);
        io::copy(&mut source, &mut io::sink()).during("cannot read it")?;
        check(source, &blob.digest, blob.size)
    }
}

struct Verify<'a> {
    store: &'a Store,
    staging: &'a Staging,
    repair: Option<&'a Settings>,
    progress: &'a dyn Progress,
    /// Whether a blob and what came of it are right, or are by now.
    layers: BTreeMap<(Digest, Digest), bool>,
    found: Vec<Damage>,
}

impl Verify<'_> {
    /// An error if its documents are as they came, and make no sense.
    fn image(&mut self, origin: &mut Origin<'_>, listed: &Descriptor) -> Result<()> {
        if !self.blob(origin, Part::Manifest, listed) {
            return Ok(());
        }
        let manifest = self.store.manifest(&listed.digest)?;
        if !self.blob(origin, Part::Configuration, &manifest.config) {
            return Ok(());
        }
        let (_, configuration) = self.store.documents(&listed.digest)?;
        let diff_ids = configuration.rootfs.diff_ids;
        let of = diff_ids.len();
        let mut is_sound = true;
        for (n, (blob, diff_id)) in manifest.layers.iter().zip(&diff_ids).enumerate() {
            let layer = LayerProgress { number: n + 1, of, diff_id: *diff_id, size: Some(blob.size) };
            is_sound &= self.layer(origin, blob, &layer)?;
        }
        if is_sound {
            let place = Place::ImageIndex(listed.digest);
            let open = |place| self.store.open_at(place);
            let made = merge_layers(self.staging, self.store.limits, &manifest.layers, &open);
            self.compare(origin, (Part::ImageIndex, listed.digest), place, made)?;
        }
        Ok(())
    }

    /// A layer, which several images may have.
    fn layer(&mut self, origin: &mut Origin<'_>, blob: &Descriptor, layer: &LayerProgress) -> Result<bool> {
        let key = (blob.digest, layer.diff_id);
        self.progress.layer_started(layer);
        let before = self.layers.get(&key).copied();
        let is_sound = match before {
            Some(is_sound) => is_sound,
            None => self.blob(origin, Part::Layer, blob) && self.unpacked(origin, blob, layer)?,
        };
        self.layers.insert(key, is_sound);
        self.progress.layer_done(layer, before.is_some());
        Ok(is_sound)
    }

    fn blob(&mut self, origin: &mut Origin<'_>, part: Part, blob: &Descriptor) -> bool {
        let Err(why) = self.store.check_blob(blob) else { return true };
        let (store, staging) = (self.store, self.staging);
        let repair =
            || origin.fetch(blob, staging).and_then(|again| put(store, again, Place::Blob(blob.digest)));
        let repair = self.repair.is_some().then(repair);
        self.note(origin, (part, blob.digest), &why, repair)
    }

    fn unpacked(&mut self, origin: &Origin<'_>, blob: &Descriptor, layer: &LayerProgress) -> Result<bool> {
        let from = blob.digest;
        match unpack_again(self.store, self.staging, blob, layer, self.progress) {
            Ok([data, index]) => {
                let data = self.compare(origin, (Part::LayerData, from), Place::LayerData(from), Ok(data))?;
                let index =
                    self.compare(origin, (Part::LayerIndex, from), Place::LayerIndex(from), Ok(index))?;
                Ok(data && index)
            }
            Err(e) if e.kind() == Kind::NoSpace => Err(e),
            Err(why) => Ok(self.note(origin, (Part::Layer, blob.digest), &why, None)),
        }
    }

    /// What was made again beside what is there.
    fn compare(
        &mut self,
        origin: &Origin<'_>,
        what: (Part, Digest),
        place: Place,
        made: Result<Temporary>,
    ) -> Result<bool> {
        let again = match made {
            Ok(again) => again,
            Err(e) if e.kind() == Kind::NoSpace => return Err(e),
            Err(why) => return Ok(self.note(origin, what, &why, None)),
        };
        let same = self.store.open_at(place).and_then(|have| same(have, &again));
        let Err(why) = same else { return Ok(true) };
        let repair = self.repair.is_some().then(|| put(self.store, again, place));
        Ok(self.note(origin, what, &why, repair))
    }

    /// Whether it is right now.
    fn note(
        &mut self,
        origin: &Origin<'_>,
        (part, digest): (Part, Digest),
        why: &ImageError,
        repair: Option<Result<()>>,
    ) -> bool {
        let repair = match repair {
            None => Repair::NotAsked,
            Some(Ok(())) => Repair::Done,
            Some(Err(e)) => Repair::Failed(chain(&e)),
        };
        let is_sound = repair == Repair::Done;
        let (image, names) = (origin.image, origin.names.to_vec());
        self.found.push(Damage { image, names, part, digest, why: chain(why), repair });
        is_sound
    }
}

/// An error unless the two are the same, byte for byte.
fn same(mut have: File, again: &Temporary) -> Result<()> {
    let mut fresh = &again.file;
    fresh.rewind().during("cannot read what was made again")?;
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    loop {
        let n = fill(&mut have, &mut one).during("cannot read it")?;
        let m = fill(&mut fresh, &mut other).during("cannot read what was made again")?;
        if one[..n] != other[..m] {
            let first = one[..n].iter().zip(&other[..m]).take_while(|(a, b)| a == b).count();
            let what = format!("it is not what its layer makes, from byte {} on", at + first);
            return Err(ImageError::invalid(what));
        }
        if n == 0 {
            return Ok(());
        }
        at += n;
    }
}

/// As much as there is room for, or as there is.
fn fill(source: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match source.read(&mut buf[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

/// An error and its causes on one line.
fn chain(error: &ImageError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
