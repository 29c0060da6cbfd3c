// SPDX-License-Identifier: Apache-2.0
//! What there is to say of an image, here or at its registry, in Docker's words.

use super::{Images, not_pulled, settings, translated};
use crate::Engine;
use crate::error::{EngineError, Result};
use isopod_image::{
    self as image, Digest, Inspected, Inspection, Kind as ImageKind, Reference, RemoteManifest, Step,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What Docker's `image inspect` tells. What the image says itself is passed on as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageInspect {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub comment: Value,
    pub created: Value,
    pub author: Value,
    pub config: Value,
    pub architecture: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub variant: Value,
    pub os: Value,
    /// Sum of the layers as they came.
    pub size: u64,
    #[serde(rename = "RootFS")]
    pub root_fs: Value,
    pub descriptor: Value,
}

impl Engine {
    /// What there is to say of an image.
    pub fn inspect_image(&self, image: &str) -> Result<ImageInspect> {
        self.images.inspect(image)
    }

    /// How an image was made, and its digest; the last step first.
    pub fn history(&self, image: &str) -> Result<(Digest, Vec<Step>)> {
        let stored = self.images.stored(image)?;
        self.images.store.history(stored).map_err(here)
    }

    /// The manifest, or the index of them, that a registry has under a name: the very bytes.
    pub fn remote_manifest(name: &str) -> Result<Vec<u8>> {
        ask(name, false).map(|(_, found)| found.root.bytes)
    }

    /// As `docker manifest inspect -v` tells it: of an index each manifest in it.
    pub fn remote_manifests(name: &str) -> Result<Value> {
        let (reference, found) = ask(name, true)?;
        let told = |manifest: &RemoteManifest| verbose(&reference, manifest);
        Ok(match found.members {
            Some(members) => members.iter().map(told).collect(),
            None => told(&found.root),
        })
    }
}

impl Images {
    fn inspect(&self, image: &str) -> Result<ImageInspect> {
        let found = self.store.inspect(self.stored(image)?).map_err(here)?;
        Ok(docker(found))
    }
}

/// An error of looking for an image that should be here.
fn here(error: image::ImageError) -> EngineError {
    match error.kind() {
        ImageKind::NotFound => translated(error).hint("`isopod images` lists what is here"),
        _ => translated(error),
    }
}

fn docker(found: Inspection) -> ImageInspect {
    let said = |key: &str| found.configuration.get(key).cloned().unwrap_or_default();
    let text = |value: Value| if value.is_null() { json!("") } else { value };
    let last = found.configuration["history"].as_array().and_then(|steps| steps.last());
    let names = found.references.iter();
    let digests: BTreeSet<String> =
        names.clone().map(|(name, digest)| format!("{}@{digest}", name.familiar_name())).collect();
    let tagged = names.map(|(name, _)| name).filter(|name| name.tag().is_some());
    ImageInspect {
        id: found.digest.to_string(),
        repo_tags: tagged.map(Reference::familiar).collect(),
        repo_digests: digests.into_iter().collect(),
        comment: text(last.and_then(|step| step.get("comment")).cloned().unwrap_or_default()),
        created: said("created"),
        author: text(said("author")),
        config: said("config"),
        architecture: said("architecture"),
        variant: said("variant"),
        os: said("os"),
        size: found.size,
        root_fs: json!({"Type": "layers", "Layers": found.configuration["rootfs"]["diff_ids"]}),
        descriptor: json!({
            "mediaType": found.media_type, "digest": found.digest.to_string(), "size": found.manifest_size,
        }),
    }
}

fn ask(name: &str, members: bool) -> Result<(Reference, Inspected)> {
    let reference = name.parse::<Reference>().map_err(translated)?;
    let found = image::inspect(&reference, &settings()?, members).map_err(not_pulled)?;
    Ok((reference, found))
}

fn verbose(reference: &Reference, found: &RemoteManifest) -> Value {
    let digest = found.digest.to_string();
    let name = reference.to_string();
    let name = name.split_once('@').map_or(name.as_str(), |(name, _)| name);
    let mut descriptor = json!({"mediaType": found.media_type, "digest": digest, "size": found.bytes.len()});
    if let Some(platform) = &found.platform {
        descriptor["platform"] = json!(platform);
    }
    // It was found to be JSON when it came.
    let manifest: Value = serde_json::from_slice(&found.bytes).unwrap_or_default();
    let key = if found.media_type.contains(".docker.") { "SchemaV2Manifest" } else { "OCIManifest" };
    json!({"Ref": format!("{name}@{digest}"), "Descriptor": descriptor, key: manifest})
}
