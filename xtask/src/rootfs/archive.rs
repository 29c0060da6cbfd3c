// SPDX-License-Identifier: Apache-2.0
//! The OCI image around the layers (image-spec: config, manifest, index, layout), as one tar file.

use super::layer::Layer;
use super::manifest::Manifest;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tar::{Builder, EntryType, Header};

const OCI: &str = "application/vnd.oci.image";

/// Bytes and their name.
#[derive(Debug)]
pub(super) struct Blob {
    /// SHA-256, in hex.
    pub(super) digest: String,
    pub(super) bytes: Vec<u8>,
}

impl Blob {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { digest: hex_digest(&bytes), bytes }
    }

    fn json(value: &Value) -> Result<Self> {
        Ok(Self::new(serde_json::to_vec(value).context("cannot write JSON")?))
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({
            "mediaType": format!("{OCI}.{kind}"),
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

pub(super) fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files of an OCI layout; sorted, so that the archive is the same every time.
#[derive(Debug)]
pub(super) struct Archive {
    files: BTreeMap<String, Vec<u8>>,
}

impl Archive {
    pub(super) fn of(manifest: &Manifest, layers: &[Layer]) -> Result<Self> {
        let created = date(manifest.time);
        let config = Blob::json(&json!({
            "created": created,
            "architecture": "amd64",
            "os": "linux",
            "config": manifest.config,
            "rootfs": {
                "type": "layers",
                "diff_ids": layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect::<Vec<_>>(),
            },
            "history": layers
                .iter()
                .map(|layer| json!({ "created": created, "created_by": layer.about }))
                .collect::<Vec<_>>(),
        }))?;
        let image = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": format!("{OCI}.manifest.v1+json"),
            "config": config.descriptor("config.v1+json"),
            "layers": layers.iter().map(|layer| layer.blob.descriptor("layer.v1.tar+gzip")).collect::<Vec<_>>(),
        }))?;
        let mut named = image.descriptor("manifest.v1+json");
        named["platform"] = json!({ "architecture": "amd64", "os": "linux" });
        named["annotations"] = json!({ "org.opencontainers.image.ref.name": manifest.reference });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": format!("{OCI}.index.v1+json"),
            "manifests": [named],
        });

        let mut files = BTreeMap::from([
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), serde_json::to_vec(&index).context("cannot write JSON")?),
        ]);
        let blobs = layers.iter().map(|layer| &layer.blob).chain([&config, &image]);
        files.extend(blobs.map(|blob| (format!("blobs/sha256/{}", blob.digest), blob.bytes.clone())));
        Ok(Self { files })
    }

    pub(super) fn into_bytes(self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for folder in ["blobs/", "blobs/sha256/"] {
            append(&mut tar, EntryType::Directory, folder, &[])?;
        }
        for (path, contents) in &self.files {
            append(&mut tar, EntryType::Regular, path, contents)?;
        }
        tar.into_inner().context("cannot end the archive")
    }
}

fn append(tar: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, contents: &[u8]) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_size(u64::try_from(contents.len())?);
    tar.append_data(&mut header, path, contents).with_context(|| format!("cannot add {path}"))
}

/// Seconds since 1970 as RFC 3339, in UTC (days to civil date: H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn seconds_become_a_date() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_767_225_600), "2026-01-01T00:00:00Z");
    }
}
