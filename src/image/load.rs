// SPDX-License-Identifier: Apache-2.0
//! From a source into the store: every byte checked on its way, and nothing visible until all of it is right.

use crate::archive::{Contents, Source};
use crate::config::{self, Configuration};
use crate::content::{self, Staging, Temporary};
use crate::digest::Digest;
use crate::error::{During, ImageError, Kind, Result};
use crate::intake::{self, Intake, Known, Origin, TRIES, Wanted};
use crate::limits::{DOCUMENT_MAX, Limits};
use crate::manifest::{
    self, CONFIG, CONTAINERD_NAME, Descriptor, INDEX_DIGEST, MANIFEST, Manifest, Parsed, REF_NAME, Saved,
    descriptor,
};
use crate::progress::LayerProgress;
use crate::reference::Reference;
use crate::store::{Named, Place};
use crate::unpack::from_build;
use isopod_index::Index;
use isopod_index::format::Use;
use isopod_index::merge::{MergeError, memory, merge};
use isopod_sys::map::FileMap;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Read, Write};

/// An index of images may lead to another; no real one leads further.
const INDEXES_MAX: usize = 3;
/// Most images of one source.
const IMAGES_MAX: usize = 1000;

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// As its source names it; an image may come without a name.
    pub reference: Option<Reference>,
    /// Of its manifest.
    pub digest: Digest,
}

/// A load under way.
pub(crate) struct Load<'a> {
    intake: Intake<'a>,
    known: Known,
    /// What its images are made of, all of it held.
    places: BTreeSet<Place>,
}

/// What a load has to put into the store, and under which names.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) places: BTreeSet<Place>,
    pub(crate) images: Vec<Named>,
}

impl<'a> Load<'a> {
    pub(crate) fn new(intake: Intake<'a>) -> Result<Self> {
        Ok(Self { intake, known: intake.store.known_layers()?, places: BTreeSet::new() })
    }

    /// Loads all images of a source.
    pub(crate) fn run(mut self, source: &Source) -> Result<Done> {
        let mut images = Vec::new();
        match source.contents()? {
            Contents::Oci(listing) => {
                let usable = |d: &&Descriptor| {
                    manifest::is_index(&d.media_type) || manifest::is_manifest(&d.media_type)
                };
                let chosen: Vec<_> = listing.manifests.iter().filter(usable).collect();
                let none =
                    || listing.manifests.first().map(|d| manifest::parse(&d.media_type, b"").map(drop));
                if let Some(Err(unknown)) = chosen.is_empty().then(none).flatten() {
                    return Err(unknown);
                }
                check_count(chosen.len())?;
                for descriptor in chosen {
                    images.push(self.oci(source, descriptor)?);
                }
            }
            Contents::Docker(saved) => {
                check_count(saved.len())?;
                for image in &saved {
                    images.extend(self.docker(source, image)?);
                }
            }
        }
        Ok(Done { places: self.places, images })
    }

    /// An image of an OCI source.
    fn oci(&mut self, source: &Source, listed: &Descriptor) -> Result<Named> {
        let name = |key| listed.annotations.get(key).map(|name: &String| name.parse::<Reference>());
        // A name no one could ask for is no name.
        let reference = name(CONTAINERD_NAME).or_else(|| name(REF_NAME)).and_then(Result::ok);
        let mut descriptor = listed.clone();
        for _ in 0..INDEXES_MAX {
            let bytes = self.document(source, &descriptor, "the image manifest")?;
            match manifest::parse(&descriptor.media_type, &bytes)? {
                Parsed::Index(manifests) => {
                    descriptor = manifest::choose(&manifests, source.platform())?.clone();
                }
                Parsed::Manifest(manifest) => {
                    let config = self.document(source, &manifest.config, "the image configuration")?;
                    let configuration = config::parse(&config, manifest.layers.len())?;
                    configuration.expect(source.platform())?;
                    self.expect_room(&manifest, &configuration)?;
                    self.oci_layers(source, &manifest, &configuration)?;
                    self.document_held(Place::Blob(manifest.config.digest), &config)?;
                    self.document_held(Place::Blob(descriptor.digest), &bytes)?;
                    self.merge(&descriptor.digest, &manifest.layers)?;
                    let index = (descriptor.digest != listed.digest).then_some(listed.digest);
                    let descriptor = plain(&descriptor, &configuration, index);
                    return Ok(Named { reference, descriptor });
                }
            }
        }
        Err(ImageError::invalid("an index of indexes of indexes of images"))
    }

    /// Layers that are not here, and that nobody fetches already, take at least as much room as they have bytes.
    fn expect_room(&self, manifest: &Manifest, configuration: &Configuration) -> Result<()> {
        let layers = manifest.layers.iter().zip(&configuration.rootfs.diff_ids);
        let here = |layer: &Descriptor, id| self.known.contains(&(layer.digest, layer.size, id));
        let fetched = |layer: &Descriptor| self.intake.store.turn(&layer.digest).exists();
        let new = layers.filter(|(layer, id)| !here(layer, **id) && !fetched(layer));
        let sizes: BTreeMap<_, _> = new.map(|(layer, _)| (layer.digest, layer.size)).collect();
        self.intake.store.expect_room(sizes.values().fold(0, |sum: u64, size| sum.saturating_add(*size)))
    }

    fn oci_layers(
        &mut self,
        source: &Source,
        manifest: &Manifest,
        configuration: &Configuration,
    ) -> Result<()> {
        let of = manifest.layers.len();
        let layers = manifest.layers.iter().zip(&configuration.rootfs.diff_ids).enumerate();
        let wanted = layers.map(|(n, (layer, diff_id))| Wanted {
            progress: LayerProgress { number: n + 1, of, diff_id: *diff_id, size: Some(layer.size) },
            from: Origin::Blob(layer),
        });
        self.layers(source, &wanted.collect::<Vec<_>>()).map(drop)
    }

    fn layers(&mut self, source: &Source, wanted: &[Wanted<'_>]) -> Result<Vec<Descriptor>> {
        let taken = self.intake.all(source, wanted, &self.known)?;
        self.places.extend(taken.iter().flat_map(|layer| intake::places(layer.digest)));
        Ok(taken)
    }

    /// An image of a `docker save` archive, under each of its names: its manifest is made here.
    fn docker(&mut self, source: &Source, saved: &Saved) -> Result<Vec<Named>> {
        let mut config = Vec::new();
        let reader = source.member(&saved.config)?;
        reader
            .take(DOCUMENT_MAX + 1)
            .read_to_end(&mut config)
            .during("cannot read the image configuration")?;
        let configuration = config::parse(&config, saved.layers.len())?;
        configuration.expect(source.platform())?;
        let of = saved.layers.len();
        let layers = saved.layers.iter().zip(&configuration.rootfs.diff_ids).enumerate();
        let wanted = layers.map(|(n, (name, diff_id))| Wanted {
            progress: LayerProgress { number: n + 1, of, diff_id: *diff_id, size: None },
            from: Origin::Member(name),
        });
        let layers = self.layers(source, &wanted.collect::<Vec<_>>())?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config: descriptor(CONFIG, Digest::of(&config), config.len() as u64),
            layers,
        };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|e| ImageError::invalid("cannot write a manifest").because(e))?;
        // Our own words, but the same rules.
        manifest::parse(MANIFEST, &bytes)?;
        let made = descriptor(MANIFEST, Digest::of(&bytes), bytes.len() as u64);
        self.document_held(Place::Blob(manifest.config.digest), &config)?;
        self.document_held(Place::Blob(made.digest), &bytes)?;
        self.merge(&made.digest, &manifest.layers)?;
        let descriptor = plain(&made, &configuration, None);
        let tags = saved.repo_tags.iter().flatten().filter_map(|tag| tag.parse().ok());
        let mut names: Vec<_> = tags
            .map(|reference| Named { reference: Some(reference), descriptor: descriptor.clone() })
            .collect();
        if names.is_empty() {
            names.push(Named { reference: None, descriptor });
        }
        Ok(names)
    }

    fn document(&mut self, source: &Source, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
        let Descriptor { digest, size, .. } = descriptor;
        if *size > DOCUMENT_MAX {
            let more = format!("{what} has {size} bytes, more than the {DOCUMENT_MAX} allowed");
            return Err(ImageError::new(Kind::TooLarge, more));
        }
        let read = || source.blob(descriptor).and_then(|blob| content::read_checked(blob, digest, *size));
        let mut document = read();
        // As with layers: it may have been changed on its way here.
        let changed = |read: &Result<_>| matches!(read, Err(e) if e.kind() == Kind::Corrupt);
        for _ in 1..TRIES {
            if source.is_remote() && changed(&document) {
                document = read();
            }
        }
        document.map_err(|e| e.within(format_args!("cannot read {what}")))
    }

    /// Merges the layers' indexes into the image's.
    fn merge(&mut self, manifest: &Digest, layers: &[Descriptor]) -> Result<()> {
        let place = Place::ImageIndex(*manifest);
        if self.hold(place)? {
            return Ok(());
        }
        let Intake { staging, limits, .. } = self.intake;
        let merged = merge_layers(staging, limits, layers, &|place| staging.open(place))?;
        staging.settle(merged, place)
    }

    /// Whether a place's file is held, after an attempt to.
    fn hold(&mut self, place: Place) -> Result<bool> {
        self.places.insert(place);
        let Intake { store, staging, .. } = self.intake;
        Ok(staging.has(place) || store.hold(staging, place)?)
    }

    fn document_held(&mut self, place: Place, bytes: &[u8]) -> Result<()> {
        if self.hold(place)? {
            return Ok(());
        }
        let mut document = self.intake.staging.temporary()?;
        document.file.write_all(bytes).during("cannot write a document")?;
        self.intake.staging.settle(document, place)
    }
}

/// Merges the layers' indexes, as they are opened, into an image's.
pub(crate) fn merge_layers(
    staging: &Staging,
    limits: Limits,
    blobs: &[Descriptor],
    open: &dyn Fn(Place) -> Result<File>,
) -> Result<Temporary> {
    let layer = |blob: &Descriptor| open(Place::LayerIndex(blob.digest)).and_then(|file| open_index(&file));
    let layers = blobs.iter().map(layer).collect::<Result<Vec<_>>>()?;
    let tables: u64 = layers.iter().map(Index::size).sum();
    let (needs, limit) = (tables.saturating_add(memory(&layers)), limits.image_metadata);
    if needs > limit {
        let more = format!(
            "its names and attributes would need {needs} bytes of memory, more than the {limit} allowed"
        );
        return Err(ImageError::new(Kind::TooLarge, more));
    }
    let merged = staging.temporary()?;
    let mut out = BufWriter::with_capacity(128 << 10, &merged.file);
    merge(&layers, &mut out).map_err(|e| unmergeable(e, blobs))?;
    out.flush().during("cannot write a file of the store")?;
    drop((layers, out));
    let index = open_index(&merged.file)?;
    if index.used() != Use::Image {
        return Err(ImageError::invalid("the merged index is not one of an image"));
    }
    index.verify().map_err(|e| ImageError::invalid("the merged index contradicts itself").because(e))?;
    Ok(merged)
}

fn open_index(file: &File) -> Result<Index<FileMap>> {
    let map = FileMap::new(file).during("cannot map an index")?;
    Index::open(map).map_err(|e| ImageError::invalid("an index of the store is broken").because(e))
}

fn check_count(images: usize) -> Result<()> {
    match images {
        0 => Err(ImageError::invalid("there is no image in it")),
        n if n > IMAGES_MAX => {
            Err(ImageError::new(Kind::TooLarge, format_args!("it has more than {IMAGES_MAX} images")))
        }
        _ => Ok(()),
    }
}

/// A manifest's descriptor as our own list has it, with the index that led to it.
fn plain(found: &Descriptor, configuration: &Configuration, index: Option<Digest>) -> Descriptor {
    let platform = Some(configuration.platform.clone());
    let annotations = index.map(|index| (INDEX_DIGEST.to_owned(), index.to_string())).into_iter().collect();
    Descriptor { platform, annotations, ..descriptor(&found.media_type, found.digest, found.size) }
}

/// Names the layer by its digest too, as far as one is to blame.
fn unmergeable(error: MergeError, blobs: &[Descriptor]) -> ImageError {
    let blamed = error.layer.and_then(|n| Some((n, blobs.get(n)?)));
    let context = blamed.map(|(n, blob)| manifest::about_layer(n, blobs.len(), blob));
    let inner = from_build(&error.cause).because(error);
    match context {
        Some(context) => inner.within(context),
        None => inner,
    }
}
