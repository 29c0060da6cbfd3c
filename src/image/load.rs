// SPDX-License-Identifier: Apache-2.0
//! From a source into the store: every byte checked on its way, and nothing visible until all of it is right.

use crate::archive::{Contents, Source};
use crate::compress::Form;
use crate::config::{self, Configuration, Platform};
use crate::content::{self, Staging, Tee};
use crate::data::DataError;
use crate::digest::{Digest, Hashing};
use crate::error::{During, ImageError, Kind, Result};
use crate::layers::{self, Cause, LayerError};
use crate::limits::{DOCUMENT_MAX, Limits};
use crate::manifest::{
    self, CONFIG, CONTAINERD_NAME, Descriptor, LAYER, MANIFEST, Manifest, Parsed, REF_NAME, Saved, descriptor,
};
use crate::progress::{LayerProgress, Progress};
use crate::reference::Reference;
use crate::store::{Named, Place, Store};
use isopod_index::format::Use;
use isopod_index::merge::{MergeError, memory, merge};
use isopod_index::{BuildError, Index};
use isopod_sys::map::FileMap;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

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

/// A load under way: what it has staged, and what for.
pub(crate) struct Load<'a> {
    store: &'a Store,
    staging: &'a Staging,
    progress: &'a mut dyn Progress,
    limits: Limits,
    /// Names in the staging folder, by where they go.
    staged: BTreeMap<Place, String>,
    /// Which blobs, of which size, are known to decompress to which layers: by listed images, or by this load.
    known: BTreeSet<(Digest, u64, Digest)>,
}

/// A layer to be taken in.
struct Incoming<'a> {
    progress: LayerProgress,
    source: Box<dyn Read + 'a>,
    /// What its descriptor promised; `docker save` promises nothing but the diff id.
    promised: Option<&'a Descriptor>,
}

impl<'a> Load<'a> {
    pub(crate) fn new(
        store: &'a Store,
        staging: &'a Staging,
        progress: &'a mut dyn Progress,
    ) -> Result<Self> {
        let (limits, known) = (store.limits(), store.known_layers()?);
        Ok(Self { store, staging, progress, limits, staged: BTreeMap::new(), known })
    }

    /// Loads all images of a source; gives what is to be published, and under which names.
    pub(crate) fn run(mut self, source: &Source) -> Result<(BTreeMap<Place, String>, Vec<Named>)> {
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
        Ok((self.staged, images))
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
                    descriptor = manifest::choose(&manifests, &Platform::host())?.clone();
                }
                Parsed::Manifest(manifest) => {
                    let config = self.document(source, &manifest.config, "the image configuration")?;
                    let configuration = config::parse(&config, manifest.layers.len())?;
                    self.oci_layers(source, &manifest, &configuration)?;
                    self.stage(Place::Blob(manifest.config.digest), &config)?;
                    self.stage(Place::Blob(descriptor.digest), &bytes)?;
                    self.merge(&descriptor.digest, &configuration)?;
                    return Ok(Named { reference, descriptor: plain(&descriptor, &configuration) });
                }
            }
        }
        Err(ImageError::invalid("an index of indexes of indexes of images"))
    }

    fn oci_layers(
        &mut self,
        source: &Source,
        manifest: &Manifest,
        configuration: &Configuration,
    ) -> Result<()> {
        let of = manifest.layers.len();
        for (n, (layer, diff_id)) in manifest.layers.iter().zip(&configuration.rootfs.diff_ids).enumerate() {
            let progress = LayerProgress { number: n + 1, of, diff_id: *diff_id, size: Some(layer.size) };
            let take = |load: &mut Self| {
                if load.known.contains(&(layer.digest, layer.size, *diff_id)) {
                    load.progress.layer_started(&progress);
                    load.progress.layer_done(&progress, true);
                    return Ok(());
                }
                let incoming = Incoming { progress, source: source.blob(layer)?, promised: Some(layer) };
                load.layer(incoming).map(drop)
            };
            take(self).map_err(|e| e.within(manifest::about_layer(n, of, layer)))?;
        }
        Ok(())
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
        let of = saved.layers.len();
        let mut layers = Vec::new();
        for (n, (name, diff_id)) in saved.layers.iter().zip(&configuration.rootfs.diff_ids).enumerate() {
            let take = |load: &mut Self| {
                let progress = LayerProgress { number: n + 1, of, diff_id: *diff_id, size: None };
                load.layer(Incoming { progress, source: source.member(name)?, promised: None })
            };
            let within =
                |e: ImageError| e.within(format_args!("cannot use layer {} of {of} ({diff_id})", n + 1));
            layers.push(take(self).map_err(within)?);
        }
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
        self.stage(Place::Blob(manifest.config.digest), &config)?;
        self.stage(Place::Blob(made.digest), &bytes)?;
        self.merge(&made.digest, &configuration)?;
        let descriptor = plain(&made, &configuration);
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
        let read = source.blob(descriptor).and_then(|blob| content::read_checked(blob, digest, *size));
        read.map_err(|e| e.within(format_args!("cannot read {what}")))
    }

    /// Takes a layer in: its blob as it comes, its data and its index. Gives its descriptor.
    fn layer(&mut self, incoming: Incoming<'_>) -> Result<Descriptor> {
        let Incoming { progress: layer, source, promised } = incoming;
        self.progress.layer_started(&layer);
        let names = ["blob", "data", "index"].map(|what| format!("{what}-{}", self.staged.len()));
        let blob = BufWriter::with_capacity(128 << 10, self.staging.create_file(&names[0])?);
        let data = BufWriter::with_capacity(128 << 10, self.staging.create_file(&names[1])?);
        let size = promised.map_or(self.limits.layer_bytes, |p| p.size);
        let source = Reporting { source: source.take(size.saturating_add(1)), progress: &mut *self.progress };
        let mut source = Hashing::new(Tee::new(source, blob));
        let unpacked = match layers::unpack(&mut source, data, &self.limits) {
            Ok((unpacked, _)) => unpacked,
            Err(error) => {
                // Wrong bytes are the better explanation, if they are wrong. (Those left are few, or as many as promised.)
                if let Some(promised) = promised {
                    io::copy(&mut source, &mut io::sink()).during("cannot read the layer")?;
                    content::check(source, &promised.digest, promised.size)?;
                }
                return Err(refused(error));
            }
        };
        let mut start = [0; 4];
        let (tee, digest, len) = source.into_parts();
        finish(tee.into_copy())?;
        finish(unpacked.data)?;
        match promised {
            Some(promised) => content::check_found((digest, len), &promised.digest, promised.size)?,
            None if len > size => {
                return Err(ImageError::new(Kind::TooLarge, format_args!("it has more than {size} bytes")));
            }
            None => {}
        }
        if unpacked.diff_id != layer.diff_id {
            let found = unpacked.diff_id;
            let want = layer.diff_id;
            return Err(ImageError::invalid(format_args!(
                "decompressed, it is {found}, and not {want} as the configuration says"
            )));
        }
        let mut index = BufWriter::with_capacity(128 << 10, self.staging.create_file(&names[2])?);
        unpacked.tree.write(&mut index).map_err(|e| from_build(&e).because(e))?;
        finish(index)?;
        let read =
            self.staging.open_file(&names[0])?.read(&mut start).during("cannot read the layer again")?;
        let media_type = match Form::of(&start[..read]) {
            Form::Plain => LAYER.to_owned(),
            Form::Gzip => format!("{LAYER}+gzip"),
            Form::Zstd => format!("{LAYER}+zstd"),
        };
        let [blob, data, index] = names;
        self.known.insert((digest, len, layer.diff_id));
        self.staged.insert(Place::Blob(digest), blob);
        self.staged.insert(Place::LayerData(layer.diff_id), data);
        self.staged.insert(Place::LayerIndex(layer.diff_id), index);
        self.progress.layer_done(&layer, false);
        Ok(promised.cloned().unwrap_or_else(|| descriptor(&media_type, digest, len)))
    }

    /// Merges the layers' indexes into the image's.
    fn merge(&mut self, manifest: &Digest, configuration: &Configuration) -> Result<()> {
        if self.has(Place::ImageIndex(*manifest)) {
            return Ok(());
        }
        let diff_ids = &configuration.rootfs.diff_ids;
        let layer =
            |diff_id: &Digest| self.open(Place::LayerIndex(*diff_id)).and_then(|file| open_index(&file));
        let layers = diff_ids.iter().map(layer).collect::<Result<Vec<_>>>()?;
        let tables: u64 = layers.iter().map(Index::size).sum();
        let (needs, limit) = (tables.saturating_add(memory(&layers)), self.limits.image_metadata);
        if needs > limit {
            let more = format!(
                "its names and attributes would need {needs} bytes of memory, more than the {limit} allowed"
            );
            return Err(ImageError::new(Kind::TooLarge, more));
        }
        let name = format!("image-{}", self.staged.len());
        let mut out = BufWriter::with_capacity(128 << 10, self.staging.create_file(&name)?);
        merge(&layers, &mut out).map_err(|e| unmergeable(e, diff_ids))?;
        drop(layers);
        let file = finish(out)?;
        let merged = open_index(&file)?;
        if merged.used() != Use::Image {
            return Err(ImageError::invalid("the merged index is not one of an image"));
        }
        merged.verify().map_err(|e| ImageError::invalid("the merged index contradicts itself").because(e))?;
        self.staged.insert(Place::ImageIndex(*manifest), name);
        Ok(())
    }

    fn has(&self, place: Place) -> bool {
        self.staged.contains_key(&place) || self.store.has(place)
    }

    fn open(&self, place: Place) -> Result<File> {
        match self.staged.get(&place) {
            Some(name) => self.staging.open_file(name),
            None => self.store.open_at(place),
        }
    }

    fn stage(&mut self, place: Place, bytes: &[u8]) -> Result<()> {
        if self.has(place) {
            return Ok(());
        }
        let name = format!("document-{}", self.staged.len());
        let mut file = self.staging.create_file(&name)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).during("cannot write a document")?;
        self.staged.insert(place, name);
        Ok(())
    }
}

/// Down to the disk, so that a rename publishes contents and not a promise of them.
fn finish(out: BufWriter<File>) -> Result<File> {
    let file = out.into_inner().map_err(|e| e.into_error()).during("cannot write a file of the store")?;
    file.sync_all().during("cannot write a file of the store")?;
    Ok(file)
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

/// A manifest's descriptor as our own list has it.
fn plain(found: &Descriptor, configuration: &Configuration) -> Descriptor {
    let platform = Some(configuration.platform.clone());
    Descriptor { platform, ..descriptor(&found.media_type, found.digest, found.size) }
}

fn refused(error: LayerError) -> ImageError {
    let kind = match &error.cause {
        Cause::Data(DataError::Write(_)) => Kind::Io,
        Cause::Tree(e) => from_build(e).kind(),
        Cause::Data(DataError::Bomb { .. }) | Cause::OverBudget(_) | Cause::TooManySteps => Kind::TooLarge,
        _ => Kind::Invalid,
    };
    ImageError::new(kind, "its archive is refused").because(error)
}

/// Names the layer by its digest too, as far as one is to blame.
fn unmergeable(error: MergeError, diff_ids: &[Digest]) -> ImageError {
    let blamed = error.layer.and_then(|n| diff_ids.get(n)).map(|diff_id| (error.layer.unwrap_or(0), diff_id));
    let context =
        blamed.map(|(n, diff_id)| format!("cannot use layer {} of {} ({diff_id})", n + 1, diff_ids.len()));
    let inner = from_build(&error.cause).because(error);
    match context {
        Some(context) => inner.within(context),
        None => inner,
    }
}

fn from_build(error: &BuildError) -> ImageError {
    let kind = match error {
        BuildError::Io(_) => Kind::Io,
        BuildError::TooLarge { .. } | BuildError::TooManyEntries | BuildError::TooManyLayers { .. } => {
            Kind::TooLarge
        }
        _ => Kind::Invalid,
    };
    ImageError::new(kind, "cannot make the index")
}

/// Tells how far a stream has come.
struct Reporting<'a, R> {
    source: R,
    progress: &'a mut dyn Progress,
}

impl<R: Read> Read for Reporting<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buf)?;
        self.progress.layer_advanced(n as u64);
        Ok(n)
    }
}
