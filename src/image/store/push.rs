// SPDX-License-Identifier: Apache-2.0
//! From the store to a registry: the very bytes that came, so that digests stay what they are.

use super::{Place, Store, as_manifest, reference_of};
use crate::config;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::progress::{LayerProgress, Progress};
use crate::reference::Reference;
use crate::registry::{Settings, Upload};
use rustix::fs::FlockOperation;
use std::collections::BTreeMap;
use std::fs::File;

impl Store {
    /// Pushes the image of this name to its registry, under its tag. Gives its digest.
    pub fn push(
        &self,
        reference: &Reference,
        settings: &Settings,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        let within = |e: ImageError| e.within(format_args!("cannot push {reference}"));
        let Some(tag) = reference.tag() else {
            return Err(within(ImageError::invalid("what is pushed needs a tag, and a digest is none")));
        };
        let outgoing = self.outgoing(reference).map_err(within)?;
        let send = || -> Result<()> {
            let from = outgoing.elsewhere.values().cloned().collect();
            let upload = Upload::open(reference, &from, settings)?;
            for (layer, digest, file) in &outgoing.layers {
                progress.layer_started(layer);
                let from = outgoing.elsewhere.get(digest).map(String::as_str);
                let present = upload.has(digest)? || !upload.blob(digest, file, from)?;
                progress.layer_done(layer, present);
            }
            let (config, file) = &outgoing.config;
            if !upload.has(config)? {
                upload.blob(config, file, None)?;
            }
            upload.manifest(tag, &outgoing.media_type, &outgoing.manifest)
        };
        send().map_err(within)?;
        Ok(outgoing.digest)
    }

    /// All of an image, open: who removes it meanwhile does not take it from us.
    fn outgoing(&self, reference: &Reference) -> Result<Outgoing> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let digest = self.find(&reference.to_string())?.1;
        let bytes = self.read(Place::Blob(digest))?;
        let manifest = as_manifest(&bytes)?;
        let configuration =
            config::parse(&self.read(Place::Blob(manifest.config.digest))?, manifest.layers.len())?;
        let of = manifest.layers.len();
        let layers = manifest.layers.iter().zip(configuration.rootfs.diff_ids).enumerate();
        let layers = layers.map(|(n, (layer, diff_id))| {
            let progress = LayerProgress { number: n + 1, of, diff_id, size: Some(layer.size) };
            Ok((progress, layer.digest, self.open_at(Place::Blob(layer.digest))?))
        });
        Ok(Outgoing {
            elsewhere: self.elsewhere(reference)?,
            digest,
            media_type: manifest.media_type.clone(),
            config: (manifest.config.digest, self.open_at(Place::Blob(manifest.config.digest))?),
            layers: layers.collect::<Result<_>>()?,
            manifest: bytes,
        })
    }

    /// Layers that another repository of the same registry likely has, for an image here came from it or went to it.
    fn elsewhere(&self, reference: &Reference) -> Result<BTreeMap<Digest, String>> {
        let mut found = BTreeMap::new();
        for descriptor in self.listing()?.manifests {
            let Some(other) = reference_of(&descriptor) else { continue };
            if other.domain() != reference.domain() || other.path() == reference.path() {
                continue;
            }
            for layer in self.manifest(&descriptor.digest)?.layers {
                found.insert(layer.digest, other.path().to_owned());
            }
        }
        Ok(found)
    }
}

struct Outgoing {
    /// Repositories of the same registry, by the layers they should have.
    elsewhere: BTreeMap<Digest, String>,
    digest: Digest,
    manifest: Vec<u8>,
    media_type: String,
    config: (Digest, File),
    layers: Vec<(LayerProgress, Digest, File)>,
}
