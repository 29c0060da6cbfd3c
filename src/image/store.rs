// SPDX-License-Identifier: Apache-2.0
//! The images of this machine.
//!
//! ```text
//!   oci-layout, index.json      an OCI image layout that skopeo and umoci can read: each image under its whole reference
//!   blobs/sha256/<digest>       manifests, configurations and layers as they came
//!   disks/sha256/<layer>.data, .index         what became of each layer's archive
//!   images/sha256/<manifest>.index             the merged index of each image
//!   reserve                     room for an `index.json` with less in it: see `listing`
//!   tmp/                        loads under way, with links to all that they need
//!   turns/<digest>              whose turn it is to fetch a blob, while there are loads
//!   lock                        shared to look an image up, exclusive to change what there is
//! ```
//! Files are immutable and named by digest, so that whoever has one open needs no lock. `index.json` says which of them
//! mean something, and is replaced in one step, last: a load killed anywhere before has not happened.

mod inspect;
mod listing;
mod names;
mod prune;
mod push;
mod repair;
mod room;
mod save;
mod usage;
mod verify;

use crate::archive::Source;
use crate::config::{self, Configuration, ImageConfig, Platform};
use crate::content::{Staging, make_folder, sync_folder};
use crate::digest::Digest;
use crate::error::{During, ImageError, Kind, Result};
use crate::intake::{Intake, Known, places};
use crate::limits::{DOCUMENT_MAX, Limits};
use crate::load::{Done, Load, Loaded};
use crate::manifest::{self, Descriptor, INDEX, INDEX_DIGEST, Listing, Manifest, Parsed, REF_NAME};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Remote, Settings};
use crate::unpack::Worker;
use isopod_jail::View;
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use inspect::{Inspection, Step};
pub use names::Removed;
pub use prune::Pruned;
pub use save::ArchiveForm;
pub use usage::{ImageUsage, Stray, Usage, on_disk};
pub use verify::{Damage, Part, Repair};

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A store of images.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
    worker: Worker,
}

/// Something in the store, by what it is and its digest: the only way to a path in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Blob(Digest),
    LayerData(Digest),
    LayerIndex(Digest),
    ImageIndex(Digest),
}

impl Place {
    const FOLDERS: [&'static str; 3] = ["blobs/sha256", "disks/sha256", "images/sha256"];

    pub(crate) fn path(self) -> String {
        let [blobs, disks, images] = Self::FOLDERS;
        match self {
            Self::Blob(digest) => format!("{blobs}/{}", digest.hex()),
            Self::LayerData(digest) => format!("{disks}/{}.data", digest.hex()),
            Self::LayerIndex(digest) => format!("{disks}/{}.index", digest.hex()),
            Self::ImageIndex(digest) => format!("{images}/{}.index", digest.hex()),
        }
    }
}

/// An image to be listed, perhaps under a name.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) reference: Option<Reference>,
    pub(crate) descriptor: Descriptor,
}

/// An image, ready to be served: descriptors and no paths.
#[derive(Debug)]
pub struct Image {
    /// The name it was found by, or one of its names.
    pub reference: Option<Reference>,
    /// Of its manifest.
    pub digest: Digest,
    pub config: ImageConfig,
    /// The merged index.
    pub index: File,
    /// The data files its extents name, in order.
    pub layers: Vec<File>,
    /// What those were opened in.
    pub view: View,
}

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub reference: Option<Reference>,
    pub digest: Digest,
    /// Sum of the layers as they came.
    pub size: u64,
    /// As the image says, RFC 3339.
    pub created: Option<String>,
    pub layers: usize,
    pub labels: BTreeMap<String, String>,
}

impl Store {
    /// Opens the store at `root`, which is made if it is not there.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::with_limits(root, Limits::from_env())
    }

    pub fn with_limits(root: impl Into<PathBuf>, limits: Limits) -> Result<Self> {
        let root = root.into();
        let store = Self { root, limits, worker: Worker::default() };
        // The folders that an earlier isopod's store has not.
        if store.path("index.json").exists() && store.path("turns").exists() && store.path("disks").exists() {
            return Ok(store);
        }
        let made = store.within_room(|| store.make());
        made.map_err(|e| e.within(format_args!("cannot make an image store at {}", store.root.display())))?;
        Ok(store)
    }

    /// Has layers taken apart by this kind of worker.
    pub fn taking_apart_by(self, worker: Worker) -> Self {
        Self { worker, ..self }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Loads all images of an OCI layout folder, an OCI archive or a `docker save` archive.
    pub fn load(&self, source: &Path, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        let staging = self.stage()?;
        let result = self.within_room(|| {
            let opened = Source::open(source, &staging, &self.limits)?;
            self.load_from(&opened, &staging, progress)
        });
        result.map_err(|e| e.within(format_args!("cannot load {}", source.display())))
    }

    /// The same from a stream.
    pub fn load_reader(&self, source: impl Read, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        let staging = self.stage()?;
        let result = self.within_room(|| {
            let opened = Source::from_reader(source, &staging, &self.limits)?;
            self.load_from(&opened, &staging, progress)
        });
        result.map_err(|e| e.within("cannot load the image"))
    }

    /// Pulls the image of this name from its registry: of several platforms, the one for this.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        settings: &Settings,
        progress: &dyn Progress,
    ) -> Result<Loaded> {
        let what = || format!("cannot pull {reference}");
        let remote = Remote::find(reference, platform, settings).map_err(|e| e.within(what()))?;
        let staging = self.stage()?;
        let source = Source::Remote(Box::new(remote));
        let loaded = self.within_room(|| self.load_from(&source, &staging, progress));
        let first = |loaded: Vec<Loaded>| loaded.into_iter().next();
        let none = || ImageError::invalid("the registry has no image there");
        loaded.and_then(|loaded| first(loaded).ok_or_else(none)).map_err(|e| e.within(what()))
    }

    /// Whether there is an image of this name, or one whose digest begins so.
    pub fn has_image(&self, asked: &str) -> Result<bool> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        match self.find(asked) {
            Err(e) if e.kind() == Kind::NotFound => Ok(false),
            found => found.map(|_| true),
        }
    }

    /// The digest of the image of this name, for whichever platform, or whose digest begins so.
    pub fn digest_of(&self, asked: &str) -> Result<Digest> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        self.find(asked).map(|(_, digest)| digest)
    }

    /// The image of this name, or whose digest begins so.
    pub fn resolve(&self, asked: &str) -> Result<Image> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let (reference, digest) = self.find(asked)?;
        let broken = |e: ImageError| e.within(format_args!("the image {digest} is damaged"));
        let (manifest, configuration) = self.documents(&digest).map_err(broken)?;
        configuration.expect(&Platform::host())?;
        self.open_image(reference, digest, (manifest, configuration.config)).map_err(broken)
    }

    /// All images, in order of their names; those without one at the end.
    pub fn list(&self) -> Result<Vec<Summary>> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        self.summaries()
    }

    pub(crate) fn known_layers(&self) -> Result<Known> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let mut known = BTreeSet::new();
        for descriptor in self.listing()?.manifests {
            // A damaged image is no reason to refuse another; what it has is fetched again.
            let Ok((manifest, configuration)) = self.documents(&descriptor.digest) else { continue };
            for (layer, diff_id) in manifest.layers.iter().zip(configuration.rootfs.diff_ids) {
                known.insert((layer.digest, layer.size, diff_id));
            }
        }
        Ok(known)
    }

    pub(crate) fn open_at(&self, place: Place) -> Result<File> {
        let path = self.path(&place.path());
        File::open(&path).during(format_args!("cannot open {}", path.display()))
    }

    fn make(&self) -> Result<()> {
        // As an earlier isopod called it; whoever else does this at the same time has done it.
        let _ = fs::rename(self.path("layers"), self.path("disks"));
        let parent = self.root.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            fs::create_dir_all(parent).during(format_args!("cannot make {}", parent.display()))?;
        }
        for folder in ["", "blobs", "disks", "images", "tmp", "turns"].iter().chain(&Place::FOLDERS) {
            match make_folder(&self.path(folder)) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(e).during("cannot make a folder");
                }
                _ => {}
            }
        }
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        if self.path("index.json").exists() {
            return self.adopt();
        }
        for made in parent
            .into_iter()
            .map(Path::to_path_buf)
            .chain(["blobs", "disks", "images"].map(|f| self.path(f)))
        {
            sync_folder(&made)?;
        }
        // Somebody may have been killed while he did this.
        Staging::sweep(&self.path("tmp"))?;
        let staging = Staging::create(&self.path("tmp"))?;
        self.put(&staging, "oci-layout", LAYOUT)?;
        self.make_reserve()?;
        let nothing =
            Listing { schema_version: 2, media_type: Some(INDEX.to_owned()), manifests: Vec::new() };
        self.put_listing(&staging, &nothing)
    }

    /// An earlier isopod's store has a layer's files by what it decompresses to.
    fn adopt(&self) -> Result<()> {
        for descriptor in self.listing()?.manifests {
            let Ok((manifest, configuration)) = self.documents(&descriptor.digest) else { continue };
            for (layer, diff_id) in manifest.layers.iter().zip(configuration.rootfs.diff_ids) {
                for (old, new) in places(diff_id).into_iter().zip(places(layer.digest)).skip(1) {
                    match fs::hard_link(self.path(&old.path()), self.path(&new.path())) {
                        Err(e) if !matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                            return Err(e).during("cannot take over an earlier store");
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// A folder for a load, after those of dead loads are gone.
    fn stage(&self) -> Result<Staging> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        self.recover(0)?;
        self.within_room(|| Staging::create(&self.path("tmp")))
    }

    fn load_from(&self, source: &Source, staging: &Staging, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        let intake = Intake { store: self, staging, progress, limits: self.limits, worker: self.worker };
        let done = Load::new(intake)?.run(source).and_then(|done| self.keep(done, staging));
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        self.recover(1)?;
        if done.is_err() {
            self.remove_unlisted()?;
        }
        done
    }

    /// Makes what a load has brought part of the store.
    fn keep(&self, done: Done, staging: &Staging) -> Result<Vec<Loaded>> {
        let Done { places, images } = done;
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        // What was here already may have been removed meanwhile: it is held, and comes back.
        places.iter().try_for_each(|place| self.publish(staging, *place))?;
        for folder in Place::FOLDERS {
            sync_folder(&self.path(folder))?;
        }
        let mut listing = self.listing()?;
        for image in &images {
            list(&mut listing.manifests, image);
        }
        self.put_listing(staging, &listing)?;
        Ok(images
            .into_iter()
            .map(|i| Loaded { reference: i.reference, digest: i.descriptor.digest })
            .collect())
    }

    /// The caller holds the lock.
    fn summaries(&self) -> Result<Vec<Summary>> {
        let mut list = Vec::new();
        for descriptor in self.listing()?.manifests {
            let (manifest, configuration) = self.documents(&descriptor.digest)?;
            list.push(Summary {
                reference: reference_of(&descriptor),
                digest: descriptor.digest,
                // A manifest's numbers are an image's word until its blobs were read.
                size: manifest.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size)),
                created: configuration.created,
                layers: manifest.layers.len(),
                labels: configuration.config.labels,
            });
        }
        list.sort_by(|a, b| {
            (a.reference.is_none(), &a.reference).cmp(&(b.reference.is_none(), &b.reference))
        });
        Ok(list)
    }

    /// Keeps what is in a place for a load, if it is there.
    pub(crate) fn hold(&self, staging: &Staging, place: Place) -> Result<bool> {
        staging.hold(place, &self.path(&place.path()))
    }

    pub(crate) fn publish(&self, staging: &Staging, place: Place) -> Result<()> {
        staging.publish(place, &self.path(&place.path()))
    }

    /// Where it is decided who fetches a blob.
    pub(crate) fn turn(&self, blob: &Digest) -> PathBuf {
        self.path("turns").join(blob.hex())
    }

    fn find(&self, asked: &str) -> Result<(Option<Reference>, Digest)> {
        let listing = self.listing()?;
        let reference = asked.parse::<Reference>();
        if let Ok(wanted) = &reference {
            let same = |have: &Reference| match wanted.digest() {
                Some(_) => (have.domain(), have.path()) == (wanted.domain(), wanted.path()),
                None => have == wanted,
            };
            let fits = |d: &&Descriptor| wanted.digest().is_none_or(|digest| has_digest(d, &digest));
            let named = |d: &Descriptor| reference_of(d).filter(same).map(|have| (Some(have), d.digest));
            if let Some(found) = listing.manifests.iter().filter(fits).find_map(named) {
                return Ok(found);
            }
        }
        let digits = asked.strip_prefix("sha256:").unwrap_or(asked);
        let hex = digits.len() >= 4 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let begins = |d: &&Descriptor| hex && d.digest.hex().starts_with(digits);
        let found: BTreeMap<_, _> =
            listing.manifests.iter().filter(begins).map(|d| (d.digest, reference_of(d))).collect();
        match (found.len(), found.into_iter().next()) {
            (1, Some((digest, reference))) => Ok((reference, digest)),
            (0, _) => {
                let whole = reference.map_or_else(|_| asked.escape_debug().to_string(), |r| r.to_string());
                Err(ImageError::new(Kind::NotFound, format_args!("there is no image `{whole}` here")))
            }
            _ => {
                Err(ImageError::invalid(format_args!("more than one image's digest begins with `{digits}`")))
            }
        }
    }

    fn open_image(
        &self,
        reference: Option<Reference>,
        digest: Digest,
        (manifest, config): (Manifest, ImageConfig),
    ) -> Result<Image> {
        // A machine has these for as long as it runs: they are to tell it nothing of the host.
        let view = View::of(&self.root).during(format_args!("cannot open {}", self.root.display()))?;
        let open = |place: Place| {
            view.open(&place.path())
                .during(format_args!("cannot open {}", self.path(&place.path()).display()))
        };
        let layers: Result<Vec<_>> =
            manifest.layers.iter().map(|layer| open(Place::LayerData(layer.digest))).collect();
        Ok(Image {
            reference,
            digest,
            config,
            index: self.open_at(Place::ImageIndex(digest))?,
            layers: layers?,
            view,
        })
    }

    fn documents(&self, digest: &Digest) -> Result<(Manifest, Configuration)> {
        let manifest = self.manifest(digest)?;
        let config = self.read(Place::Blob(manifest.config.digest))?;
        let configuration = config::parse(&config, manifest.layers.len())?;
        Ok((manifest, configuration))
    }

    fn manifest(&self, digest: &Digest) -> Result<Manifest> {
        as_manifest(&self.read(Place::Blob(*digest))?)
    }

    fn read(&self, place: Place) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open_at(place)?;
        file.take(DOCUMENT_MAX).read_to_end(&mut bytes).during("cannot read a document")?;
        Ok(bytes)
    }

    fn lock(&self, how: FlockOperation) -> Result<File> {
        let path = self.path("lock");
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let what = format!("cannot lock {}", path.display());
        let file = open.during(&what)?;
        flock(&file, how).during(&what)?;
        Ok(file)
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }
}

/// All files of the image whose manifest has this digest.
fn files_of(digest: Digest, manifest: &Manifest) -> Vec<Place> {
    let mut files = vec![Place::ImageIndex(digest), Place::Blob(digest), Place::Blob(manifest.config.digest)];
    files.extend(manifest.layers.iter().flat_map(|layer| places(layer.digest)));
    files
}

/// Whichever of the two kinds it is was checked when it came.
fn as_manifest(bytes: &[u8]) -> Result<Manifest> {
    let own = |media_type| manifest::parse(media_type, bytes);
    match own(manifest::MANIFEST).or_else(|_| own(manifest::DOCKER_MANIFEST))? {
        Parsed::Manifest(manifest) => Ok(*manifest),
        Parsed::Index(_) => Err(ImageError::invalid("an index in a manifest's place")),
    }
}

/// Whether it is an image's digest, or its index's.
fn has_digest(descriptor: &Descriptor, wanted: &Digest) -> bool {
    let index = || descriptor.annotations.get(INDEX_DIGEST)?.parse::<Digest>().ok();
    descriptor.digest == *wanted || index() == Some(*wanted)
}

fn reference_of(descriptor: &Descriptor) -> Option<Reference> {
    descriptor.annotations.get(REF_NAME)?.parse().ok()
}

/// Lists an image. A name goes from the image that had it, which stays by its digest; a nameless entry gives way to a name.
fn list(manifests: &mut Vec<Descriptor>, image: &Named) {
    let name = image.reference.as_ref().map(Reference::to_string);
    let digest = image.descriptor.digest;
    if name.is_none() && manifests.iter().any(|d| d.digest == digest) {
        return;
    }
    if let Some(name) = &name {
        let lost = manifests.iter().position(|d| d.annotations.get(REF_NAME) == Some(name));
        if let Some(mut old) = lost.map(|n| manifests.remove(n)) {
            old.annotations.remove(REF_NAME);
            if !manifests.iter().any(|d| d.digest == old.digest) {
                manifests.push(old);
            }
        }
        manifests.retain(|d| d.digest != digest || d.annotations.contains_key(REF_NAME));
    }
    let mut descriptor = image.descriptor.clone();
    descriptor.annotations.extend(name.map(|name| (REF_NAME.to_owned(), name)));
    manifests.push(descriptor);
}

#[cfg(test)]
mod tests;
