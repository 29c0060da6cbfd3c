// SPDX-License-Identifier: Apache-2.0
//! Layers on their way in, several at once: each is fetched, taken apart by a worker, checked, and put in its place.
//!
//! ```text
//!   source ─► digest ─► blob file            (this process: network, documents)
//!                └────► worker ─► data file, index file     (its own process: decompresses, reads the archive)
//! ```
//! A layer is published as soon as it is whole, so that whoever waits for the same one has it; what makes it part of an
//! image is the list, later.

use crate::archive::Source;
use crate::compress::Form;
use crate::content::{self, Staging, Tee};
use crate::digest::{Digest, Hashing};
use crate::error::{During, ImageError, Kind, Result};
use crate::limits::Limits;
use crate::manifest::{self, Descriptor, LAYER, descriptor};
use crate::progress::{LayerProgress, Progress};
use crate::store::{Place, Store};
use crate::turn::Turn;
use crate::unpack::{Unpacking, Worker};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

/// As many as Docker fetches at once.
const AT_ONCE: usize = 3;
/// How often a layer or a document is fetched whose bytes are not what their digest says.
pub(crate) const TRIES: u32 = 3;

/// Blobs of layers, their sizes and their diff ids, as the images here were found to have them.
pub(crate) type Known = BTreeSet<(Digest, u64, Digest)>;

/// What all layers of a load are taken in with.
#[derive(Clone, Copy)]
pub(crate) struct Intake<'a> {
    pub(crate) store: &'a Store,
    pub(crate) staging: &'a Staging,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) limits: Limits,
    pub(crate) worker: Worker,
}

/// A layer that is wanted.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) progress: LayerProgress,
    pub(crate) from: Origin<'a>,
}

/// Where it is, in its source.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    Blob(&'a Descriptor),
    /// A member of an archive of `docker save`, which promises nothing but the diff id.
    Member(&'a str),
}

impl Intake<'_> {
    /// Takes all of them in. Gives their descriptors, in order; of several failures, the first layer's.
    pub(crate) fn all(
        &self,
        source: &Source,
        wanted: &[Wanted<'_>],
        known: &Known,
    ) -> Result<Vec<Descriptor>> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results = Mutex::new(Vec::new());
        // The largest first: what comes last, nothing else is done beside.
        let mut order: Vec<_> = wanted.iter().collect();
        order.sort_by_key(|layer| Reverse(layer.progress.size));
        let work = || {
            while let Some(layer) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = self.one(source, layer, known, &failed).map_err(|e| e.within(layer.describe()));
                if result.is_err() {
                    failed.store(true, Ordering::Relaxed);
                }
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.push((layer.progress.number, result));
            }
        };
        thread::scope(|scope| {
            // As many more as can be had: this one works, too.
            (1..AT_ONCE.min(wanted.len())).for_each(|_| drop(Builder::new().spawn_scoped(scope, work)));
            work();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(number, _)| *number);
        let mut taken = Vec::with_capacity(wanted.len());
        for (_, result) in results {
            taken.extend(result?);
        }
        Ok(taken)
    }

    /// None if another layer's failure made it needless.
    fn one(
        &self,
        source: &Source,
        wanted: &Wanted<'_>,
        known: &Known,
        failed: &AtomicBool,
    ) -> Result<Option<Descriptor>> {
        let layer = &wanted.progress;
        let Origin::Blob(blob) = wanted.from else {
            self.progress.layer_started(layer);
            return self.fetch(source, wanted, failed);
        };
        let waits = || self.progress.layer_waits(layer);
        let Some(mut turn) = Turn::wait(&self.store.turn(&blob.digest), failed, waits)? else {
            return Ok(None);
        };
        let told = known.contains(&(blob.digest, blob.size, layer.diff_id));
        self.progress.layer_started(layer);
        if (told || turn.says(blob.size, &layer.diff_id)) && self.hold(&places(blob.digest))? {
            self.progress.layer_done(layer, true);
            return Ok(Some(blob.clone()));
        }
        let mut tries = 1;
        loop {
            match self.fetch(source, wanted, failed) {
                // It may have been changed on its way here; what a file has wrong stays wrong.
                Err(e) if e.kind() == Kind::Corrupt && source.is_remote() && tries < TRIES => {
                    tries += 1;
                    self.progress.layer_again(layer);
                }
                Ok(Some(_)) => {
                    turn.say(blob.size, &layer.diff_id);
                    return Ok(Some(blob.clone()));
                }
                result => return result,
            }
        }
    }

    fn hold(&self, places: &[Place]) -> Result<bool> {
        for place in places {
            if !self.staging.has(*place) && !self.store.hold(self.staging, *place)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fetch(&self, source: &Source, wanted: &Wanted<'_>, failed: &AtomicBool) -> Result<Option<Descriptor>> {
        let (reader, promised) = match wanted.from {
            Origin::Blob(blob) => (source.blob(blob)?, Some(blob)),
            Origin::Member(name) => (source.member(name)?, None),
        };
        let temporary = || self.staging.temporary();
        let [blob, data, index] = [temporary()?, temporary()?, temporary()?];
        let size = promised.map_or(self.limits.layer_bytes, |p| p.size);
        let unpacking = Unpacking::start(self.worker, self.limits, &data.file, &index.file)?;
        let copy = BufWriter::with_capacity(128 << 10, &blob.file);
        let mut source = Hashing::new(Tee::new(reader.take(size.saturating_add(1)), copy));
        let Some(unpacked) = self.pass(&mut source, unpacking, (wanted, failed))? else {
            return Ok(None);
        };
        let (tee, digest, len) = source.into_parts();
        tee.into_copy().flush().during("cannot write a file of the store")?;
        // Wrong bytes are the better explanation, if they are wrong.
        match promised {
            Some(promised) => content::check_found((digest, len), &promised.digest, promised.size)?,
            None if len > size => {
                return Err(ImageError::new(Kind::TooLarge, format_args!("it has more than {size} bytes")));
            }
            None => {}
        }
        let want = wanted.progress.diff_id;
        let found = unpacked?;
        if found != want {
            return Err(ImageError::invalid(format_args!(
                "decompressed, it is {found}, and not {want} as the configuration says"
            )));
        }
        let taken = match promised {
            Some(promised) => promised.clone(),
            None => descriptor(&media_type(&blob.file)?, digest, len),
        };
        for (file, place) in [blob, data, index].into_iter().zip(places(digest)) {
            self.staging.settle(file, place)?;
            self.store.publish(self.staging, place)?;
        }
        self.progress.layer_done(&wanted.progress, false);
        Ok(Some(taken))
    }

    /// Reads a source to its end, and hands it to the worker on the way. None if it was called off.
    fn pass(
        &self,
        source: &mut impl Read,
        unpacking: Unpacking,
        (wanted, failed): (&Wanted<'_>, &AtomicBool),
    ) -> Result<Option<Result<Digest>>> {
        let unpacked = unpacking.read_all(source, |n| {
            self.progress.layer_advanced(&wanted.progress, n as u64);
            !failed.load(Ordering::Relaxed)
        })?;
        if failed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // (What is left after a refusal is bounded by what was promised; without a promise nobody needs to know.)
        if unpacked.is_err() && matches!(wanted.from, Origin::Blob(_)) {
            io::copy(source, &mut io::sink()).during("cannot read the layer")?;
        }
        Ok(Some(unpacked))
    }
}

impl Wanted<'_> {
    fn describe(&self) -> String {
        let LayerProgress { number, of, diff_id, .. } = self.progress;
        match self.from {
            Origin::Blob(blob) => manifest::about_layer(number - 1, of, blob),
            Origin::Member(_) => format!("cannot use layer {number} of {of} ({diff_id})"),
        }
    }
}

/// A layer's files go by the blob that they came of, whose digest was taken here: what a layer decompresses to is a
/// worker's word, and no reason to take its files for another blob's.
pub(crate) fn places(blob: Digest) -> [Place; 3] {
    [Place::Blob(blob), Place::LayerData(blob), Place::LayerIndex(blob)]
}

fn media_type(blob: &File) -> Result<String> {
    let mut start = [0; 4];
    let read = blob.read_at(&mut start, 0).during("cannot read the layer again")?;
    Ok(match Form::of(&start[..read]) {
        Form::Plain => LAYER.to_owned(),
        Form::Gzip => format!("{LAYER}+gzip"),
        Form::Zstd => format!("{LAYER}+zstd"),
    })
}
