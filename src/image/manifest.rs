// SPDX-License-Identifier: Apache-2.0
//! The documents that make an image: OCI index and manifest, Docker's manifest list and manifest, `docker save`'s list.
//!
//! A document is one thing: what its descriptor's media type says it is, and its own if it has one; one with the fields of
//! another is refused (CVE-2021-41190).

use crate::config::Platform;
use crate::digest::Digest;
use crate::error::{ImageError, Kind, Result};
use crate::strict;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// The name of an image in an index.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same as containerd and newer Dockers write it: always a whole reference.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Our own: the index that an image was chosen from, so that it is found by that digest, too.
pub(crate) const INDEX_DIGEST: &str = "io.isopod.index.digest";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) urls: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// An index's or a manifest's fields, before it is known which it is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde_json::Value>,
}

pub(crate) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    let media_type = media_type.to_owned();
    Descriptor { media_type, digest, size, platform: None, urls: Vec::new(), annotations: BTreeMap::new() }
}

/// What a descriptor leads to.
#[derive(Debug)]
pub(crate) enum Parsed {
    Index(Vec<Descriptor>),
    Manifest(Box<Manifest>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u64,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// The same in OCI's words, if it is in Docker's.
    pub(crate) fn in_oci_words(&self) -> Self {
        let layer = |layer: &Descriptor| match layer.media_type.strip_prefix(DOCKER_LAYER) {
            Some(form) => {
                Descriptor { media_type: format!("{LAYER}{}", form.replace('.', "+")), ..layer.clone() }
            }
            None => layer.clone(),
        };
        Self {
            schema_version: self.schema_version,
            media_type: MANIFEST.to_owned(),
            config: Descriptor { media_type: CONFIG.to_owned(), ..self.config.clone() },
            layers: self.layers.iter().map(layer).collect(),
        }
    }
}

/// An OCI layout's, or our store's, list of images.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listing {
    pub(crate) schema_version: u64,
    #[serde(default)]
    pub(crate) media_type: Option<String>,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
}

/// One image of `docker save`'s `manifest.json`. The strings are names of members of the archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Saved {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Vec<String>,
}

pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_LIST)
}

pub(crate) fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// Parses the document a descriptor of this media type leads to.
pub(crate) fn parse(media_type: &str, bytes: &[u8]) -> Result<Parsed> {
    let index = is_index(media_type);
    if !index && !is_manifest(media_type) {
        return Err(unknown_type("a manifest", media_type));
    }
    let what = if index { "the image index" } else { "the image manifest" };
    let document: Document = strict::parse(what, bytes)?;
    let invalid = |why: &str| ImageError::invalid(format_args!("{what} {why}"));
    if document.fs_layers.is_some() || document.schema_version == Some(1) {
        return Err(ImageError::new(
            Kind::Unsupported,
            format_args!("{what} is of Docker's first version, long retired"),
        ));
    }
    if document.schema_version != Some(2) {
        return Err(invalid("does not have schema version 2"));
    }
    if document.media_type.as_deref().is_some_and(|own| own != media_type) {
        return Err(invalid("says it is of another media type than its descriptor says"));
    }
    match (document.config, document.layers, document.manifests) {
        (None, None, Some(manifests)) if index => Ok(Parsed::Index(manifests)),
        (Some(config), Some(layers), None) if !index => {
            let media_type = media_type.to_owned();
            let manifest = Manifest { schema_version: 2, media_type, config, layers };
            check(&manifest)?;
            Ok(Parsed::Manifest(Box::new(manifest)))
        }
        (_, Some(_), Some(_)) => Err(invalid("has both layers and manifests")),
        _ => Err(invalid("lacks fields it must have, or has fields it must not")),
    }
}

fn check(manifest: &Manifest) -> Result<()> {
    if !matches!(manifest.config.media_type.as_str(), CONFIG | DOCKER_CONFIG) {
        return Err(unknown_type("an image configuration", &manifest.config.media_type));
    }
    if manifest.layers.is_empty() {
        return Err(ImageError::invalid("the image has no layers"));
    }
    for (n, layer) in manifest.layers.iter().enumerate() {
        check_layer(layer).map_err(|e| e.within(about_layer(n, manifest.layers.len(), layer)))?;
    }
    Ok(())
}

/// How a layer is named in errors.
pub(crate) fn about_layer(n: usize, of: usize, layer: &Descriptor) -> String {
    format!("cannot use layer {} of {of} ({})", n + 1, layer.digest)
}

fn check_layer(layer: &Descriptor) -> Result<()> {
    let media_type = layer.media_type.as_str();
    if !layer.urls.is_empty() || media_type.contains(".foreign.") || media_type.contains(".nondistributable.")
    {
        return Err(ImageError::new(
            Kind::Unsupported,
            "its contents are elsewhere (a foreign layer), and are not fetched",
        ));
    }
    let compression = media_type.strip_prefix(LAYER).or_else(|| media_type.strip_prefix(DOCKER_LAYER));
    match compression {
        Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd") => Ok(()),
        _ => Err(unknown_type("a layer", media_type)),
    }
}

fn unknown_type(what: &str, media_type: &str) -> ImageError {
    let shown: String = media_type.chars().take(100).flat_map(char::escape_debug).collect();
    ImageError::new(Kind::Unsupported, format_args!("`{shown}` is no media type of {what} that can be used"))
}

/// The manifest of an index that is for this platform.
pub(crate) fn choose<'a>(manifests: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor> {
    let usable = |d: &&Descriptor| is_index(&d.media_type) || is_manifest(&d.media_type);
    let exact = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.fits(wanted));
    let chosen = manifests.iter().filter(usable).filter(exact).min_by_key(|d| {
        // A plain platform before one that asks for more than any CPU has.
        d.platform.as_ref().and_then(|p| p.variant.clone())
    });
    let unnamed = || manifests.iter().filter(usable).find(|d| d.platform.is_none());
    chosen.or_else(unnamed).ok_or_else(|| {
        let mut have: Vec<_> =
            manifests.iter().filter_map(|d| d.platform.as_ref()).map(Platform::to_string).collect();
        have.retain(|p| p != "unknown/unknown");
        have.dedup();
        have.truncate(20);
        let have = if have.is_empty() { "nothing".to_owned() } else { have.join(", ") };
        wanted.instead_of(&have)
    })
}

#[cfg(test)]
mod tests;
