// SPDX-License-Identifier: Apache-2.0
//! Images as an archive that other tools read: an OCI layout which, unless that is not wanted, is one of `docker save` too.
//!
//! ```text
//!   blobs/sha256/<digest>   manifests in OCI's words; configurations and layers as they came
//!   index.json              each image under each of its names, in OCI's words
//!   manifest.json           the same in Docker's words
//!   oci-layout
//! ```
//! The same images make the same bytes: members are sorted and have no times. Blobs are held against their digests on
//! their way out, so that damage is found here and not by whoever gets the archive.

use super::{LAYOUT, Place, Store, reference_of};
use crate::content::check;
use crate::digest::{Digest, Hashing};
use crate::error::{During, ImageError, Result};
use crate::manifest::{
    CONTAINERD_NAME, Descriptor, INDEX, Listing, MANIFEST, Manifest, REF_NAME, Saved, descriptor,
};
use crate::progress::{LayerProgress, Progress};
use crate::reference::Reference;
use crate::tar::Packer;
use rustix::fs::FlockOperation;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Cursor, Read, Write};

/// Which tools are to read an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveForm {
    /// Those that read OCI archives, and those that read `docker save`'s.
    #[default]
    Docker,
    /// Those that read OCI archives.
    Oci,
}

/// What goes into an archive, all of it open: who removes an image meanwhile does not take it from us.
struct Outgoing {
    blobs: BTreeMap<Digest, Blob>,
    documents: Vec<(&'static str, Vec<u8>)>,
}

struct Blob {
    contents: Box<dyn Read>,
    size: u64,
    /// Of a layer.
    diff_id: Option<Digest>,
}

/// Images that were asked for, each under the names it was asked for by.
type Chosen = BTreeMap<Digest, (Descriptor, BTreeSet<Reference>)>;

impl Store {
    /// Saves these images as one archive. A name without a tag means all tags of the repository, as `docker save` has it.
    pub fn save(
        &self,
        asked: &[&str],
        form: ArchiveForm,
        out: impl Write,
        progress: &dyn Progress,
    ) -> Result<()> {
        let outgoing = {
            let _lock = self.lock(FlockOperation::LockShared)?;
            let mut chosen = Chosen::new();
            asked.iter().try_for_each(|asked| self.choose(asked, &mut chosen))?;
            self.gather(&chosen, form)?
        };
        outgoing.write(out, progress)
    }

    fn choose(&self, asked: &str, chosen: &mut Chosen) -> Result<()> {
        let manifests = self.listing()?.manifests;
        let wanted = asked.parse::<Reference>().ok();
        let repository = wanted.as_ref().filter(|wanted| is_untagged(asked, wanted));
        let in_it = |name: &Reference| {
            name.tag().is_some()
                && repository.is_some_and(|r| (r.domain(), r.path()) == (name.domain(), name.path()))
        };
        let tags = manifests.iter().filter_map(|d| Some((d, reference_of(d).filter(in_it)?)));
        let mut found: Vec<_> = tags.map(|(d, name)| (d, Some(name))).collect();
        if found.is_empty() {
            let (name, digest) = self.find(asked)?;
            let name = name.filter(|name| wanted.as_ref() == Some(name));
            found.extend(manifests.iter().find(|d| d.digest == digest).map(|d| (d, name)));
        }
        for (descriptor, name) in found {
            let plain = || Descriptor { annotations: BTreeMap::new(), ..descriptor.clone() };
            let (_, names) = chosen.entry(descriptor.digest).or_insert_with(|| (plain(), BTreeSet::new()));
            names.extend(name);
        }
        Ok(())
    }

    /// Opens the blobs, and writes the documents that lead to them.
    fn gather(&self, chosen: &Chosen, form: ArchiveForm) -> Result<Outgoing> {
        let mut blobs = BTreeMap::new();
        let (mut saved, mut manifests) = (Vec::new(), Vec::new());
        // By name, so that the order is one that people expect.
        let mut sorted: Vec<_> = chosen.values().collect();
        sorted.sort_by_key(|(descriptor, names)| (names.first(), descriptor.digest));
        for (descriptor, names) in sorted {
            let (manifest, configuration) = self.documents(&descriptor.digest)?;
            let diff_ids = configuration.rootfs.diff_ids.into_iter().map(Some);
            let layers = manifest.layers.iter().zip(diff_ids);
            for (blob, diff_id) in [(&manifest.config, None)].into_iter().chain(layers) {
                let contents = Box::new(self.open_at(Place::Blob(blob.digest))?);
                blobs.insert(blob.digest, Blob { contents, size: blob.size, diff_id });
            }
            let (descriptor, contents) = self.outgoing_manifest(descriptor, &manifest)?;
            let size = descriptor.size;
            blobs.insert(descriptor.digest, Blob { contents, size, diff_id: None });
            saved.push(as_docker(&manifest, names));
            manifests.extend(as_oci(&descriptor, names));
        }
        let listing = Listing { schema_version: 2, media_type: Some(INDEX.to_owned()), manifests };
        let json = |e| ImageError::invalid("cannot write the archive's list of images").because(e);
        let mut documents = vec![("index.json", serde_json::to_vec(&listing).map_err(json)?)];
        if form == ArchiveForm::Docker {
            documents.push(("manifest.json", serde_json::to_vec(&saved).map_err(json)?));
        }
        documents.push(("oci-layout", LAYOUT.to_vec()));
        Ok(Outgoing { blobs, documents })
    }

    /// A manifest as readers of OCI archives take it: they know none of Docker's, which gets another digest so.
    fn outgoing_manifest(
        &self,
        found: &Descriptor,
        manifest: &Manifest,
    ) -> Result<(Descriptor, Box<dyn Read>)> {
        if found.media_type == MANIFEST {
            return Ok((found.clone(), Box::new(self.open_at(Place::Blob(found.digest))?)));
        }
        let bytes = serde_json::to_vec(&manifest.in_oci_words())
            .map_err(|e| ImageError::invalid("cannot write a manifest").because(e))?;
        let made = descriptor(MANIFEST, Digest::of(&bytes), bytes.len() as u64);
        Ok((Descriptor { platform: found.platform.clone(), ..made }, Box::new(Cursor::new(bytes))))
    }
}

impl Outgoing {
    fn write(self, out: impl Write, progress: &dyn Progress) -> Result<()> {
        let cannot = "cannot write the archive";
        let mut pack = Packer::new(BufWriter::with_capacity(128 << 10, out));
        for folder in ["blobs/", "blobs/sha256/"] {
            pack.folder(folder).during(cannot)?;
        }
        let of = self.blobs.values().filter(|blob| blob.diff_id.is_some()).count();
        let mut number = 0;
        for (digest, blob) in self.blobs {
            let layer = blob.diff_id.map(|diff_id| {
                number += 1;
                LayerProgress { number, of, diff_id, size: Some(blob.size) }
            });
            layer.iter().for_each(|layer| progress.layer_started(layer));
            let mut contents = Hashing::new(Reporting { contents: blob.contents, layer, progress });
            let packed = pack.file(&Place::Blob(digest).path(), blob.size, &mut contents);
            packed.during(format_args!("cannot put {digest} into the archive"))?;
            check(contents, &digest, blob.size)?;
            layer.iter().for_each(|layer| progress.layer_done(layer, false));
        }
        for (name, bytes) in self.documents {
            pack.file(name, bytes.len() as u64, &bytes[..]).during(cannot)?;
        }
        pack.finish().during(cannot).map(drop)
    }
}

/// A blob that tells how far it has come, if it is a layer.
struct Reporting<'a> {
    contents: Box<dyn Read>,
    layer: Option<LayerProgress>,
    progress: &'a dyn Progress,
}

impl Read for Reporting<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.contents.read(buf)?;
        if let Some(layer) = &self.layer {
            self.progress.layer_advanced(layer, n as u64);
        }
        Ok(n)
    }
}

/// An image as `docker save` lists it.
fn as_docker(manifest: &Manifest, names: &BTreeSet<Reference>) -> Saved {
    let tags: Vec<_> = tagged(names).map(Reference::familiar).collect();
    Saved {
        config: Place::Blob(manifest.config.digest).path(),
        repo_tags: Some(tags).filter(|tags| !tags.is_empty()),
        layers: manifest.layers.iter().map(|layer| Place::Blob(layer.digest).path()).collect(),
    }
}

/// An image as an OCI archive lists it: once for each of its names. `REF_NAME` has the name as it is typed, which is what
/// skopeo finds an image by; who imports images takes the whole one.
fn as_oci(descriptor: &Descriptor, names: &BTreeSet<Reference>) -> Vec<Descriptor> {
    let named = |name: &Reference| {
        let pairs = [(CONTAINERD_NAME, name.to_string()), (REF_NAME, name.familiar())];
        let annotations = pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Descriptor { annotations, ..descriptor.clone() }
    };
    let listed: Vec<_> = tagged(names).map(named).collect();
    if listed.is_empty() { vec![descriptor.clone()] } else { listed }
}

/// Names that an archive can give: a digest is what an image has anyway.
fn tagged(names: &BTreeSet<Reference>) -> impl Iterator<Item = &Reference> {
    names.iter().filter(|name| name.tag().is_some() && name.digest().is_none())
}

/// Whether what was typed has neither a tag nor a digest.
fn is_untagged(typed: &str, meant: &Reference) -> bool {
    meant.digest().is_none() && meant.tag().is_none_or(|tag| !typed.ends_with(&format!(":{tag}")))
}
