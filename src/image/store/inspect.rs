// SPDX-License-Identifier: Apache-2.0
//! What an image says of itself: its configuration as it came, and how it was made.

use super::{Place, Store, reference_of};
use crate::config;
use crate::digest::Digest;
use crate::error::{ImageError, Kind, Result};
use crate::manifest::{Descriptor, INDEX_DIGEST, Manifest};
use crate::reference::Reference;
use crate::strict;
use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde_json::Value;

/// An image and what it says.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Of its manifest, of which are the media type and the size as well.
    pub digest: Digest,
    pub media_type: String,
    pub manifest_size: u64,
    /// All its names, and the digest by which each one's registry has it: the index's, if it was chosen from one.
    pub references: Vec<(Reference, Digest)>,
    /// All of its configuration: somebody else's word.
    pub configuration: Value,
    /// Sum of the layers as they came.
    pub size: u64,
}

/// A step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// As the image says, RFC 3339.
    pub created: Option<String>,
    pub created_by: String,
    pub comment: String,
    /// Of the layer that came of it, as that came; 0 if none did.
    pub size: u64,
}

#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(default)]
    history: Option<Vec<Entry>>,
}

/// A step as the configuration has it (OCI image specification, `config.md`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    empty_layer: Option<bool>,
}

impl Store {
    /// What there is to say of an image.
    pub fn inspect(&self, asked: &str) -> Result<Inspection> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let (_, digest) = self.find(asked)?;
        let (manifest, bytes) = self.both(&digest)?;
        let mut manifests = self.listing()?.manifests;
        manifests.retain(|d| d.digest == digest);
        let at_registry = |d: &Descriptor| {
            d.annotations.get(INDEX_DIGEST).and_then(|index| index.parse().ok()).unwrap_or(digest)
        };
        let references = manifests.iter().filter_map(|d| Some((reference_of(d)?, at_registry(d))));
        Ok(Inspection {
            digest,
            media_type: manifest.media_type.clone(),
            manifest_size: manifests.first().map_or(0, |d| d.size),
            references: references.collect(),
            configuration: strict::parse("the image configuration", &bytes)?,
            size: manifest.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size)),
        })
    }

    /// How an image was made, and its digest; the last step first.
    pub fn history(&self, asked: &str) -> Result<(Digest, Vec<Step>)> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let (_, digest) = self.find(asked)?;
        let (manifest, bytes) = self.both(&digest)?;
        let said: Said = strict::parse("the image configuration", &bytes)?;
        let sizes: Vec<u64> = manifest.layers.iter().map(|layer| layer.size).collect();
        steps(said.history.unwrap_or_default(), &sizes).map(|steps| (digest, steps))
    }

    fn both(&self, digest: &Digest) -> Result<(Manifest, Vec<u8>)> {
        let manifest = self.manifest(digest)?;
        let bytes = self.read(Place::Blob(manifest.config.digest))?;
        config::parse(&bytes, manifest.layers.len())?;
        Ok((manifest, bytes))
    }
}

/// Each step that is not empty made one layer. Layers nobody tells of have a step of their own.
fn steps(history: Vec<Entry>, sizes: &[u64]) -> Result<Vec<Step>> {
    let mut sizes = sizes.iter();
    let mut steps = Vec::new();
    for entry in history {
        let made_layer = entry.empty_layer != Some(true);
        let untrue =
            || ImageError::new(Kind::Invalid, "the image's history tells of more layers than it has");
        steps.push(Step {
            created: entry.created,
            created_by: entry.created_by.unwrap_or_default(),
            comment: entry.comment.unwrap_or_default(),
            size: if made_layer { *sizes.next().ok_or_else(untrue)? } else { 0 },
        });
    }
    steps.extend(sizes.map(|size| Step { size: *size, ..Step::default() }));
    steps.reverse();
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(text: &str, sizes: &[u64]) -> Result<Vec<(String, u64)>> {
        let said: Said = strict::parse("it", text.as_bytes()).unwrap();
        let steps = steps(said.history.unwrap_or_default(), sizes)?;
        Ok(steps.into_iter().map(|step| (step.created_by, step.size)).collect())
    }

    #[test]
    fn sizes_go_to_the_steps_that_made_layers() {
        let text = r#"{"history": [{"created_by": "a"}, {"created_by": "b", "empty_layer": true},
            {"created_by": "c", "comment": null}]}"#;
        let made = |steps: &[(&str, u64)]| -> Vec<(String, u64)> {
            steps.iter().map(|(by, size)| ((*by).to_owned(), *size)).collect()
        };
        assert_eq!(history(text, &[1, 2]).unwrap(), made(&[("c", 2), ("b", 0), ("a", 1)]));
        assert_eq!(history(text, &[1, 2, 3]).unwrap(), made(&[("", 3), ("c", 2), ("b", 0), ("a", 1)]));
        assert_eq!(history(text, &[1]).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(history(r#"{"history": null}"#, &[1]).unwrap(), made(&[("", 1)]));
    }
}
