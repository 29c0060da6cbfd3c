// SPDX-License-Identifier: Apache-2.0
//! Image layouts made by the tests: layers of any bytes, documents that can be bent before they are written.

use super::Host;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer as it is stored: what its descriptor and the configuration say of it, rightly.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) blob: Vec<u8>,
    pub(crate) compression: &'static str,
    pub(crate) diff_id: String,
}

impl Layer {
    pub(crate) fn gzip(tar: &[u8]) -> Self {
        Self { blob: gzip(tar), compression: "+gzip", diff_id: digest(tar) }
    }
}

/// An OCI layout of one image, named `name`, before it is written.
#[derive(Debug)]
pub(crate) struct Layout {
    name: String,
    blobs: Vec<(String, Vec<u8>)>,
    pub(crate) config: Value,
    pub(crate) manifest: Value,
    pub(crate) index: Value,
}

impl Layout {
    pub(crate) fn new(name: &str, layers: Vec<Layer>) -> Self {
        let ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let mut blobs = Vec::new();
        let mut descriptors = Vec::new();
        for layer in layers {
            let digest = digest(&layer.blob);
            let media_type = format!("{LAYER}{}", layer.compression);
            descriptors.push(json!({"mediaType": media_type, "digest": digest, "size": layer.blob.len()}));
            blobs.push((digest, layer.blob));
        }
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": descriptors});
        Self { name: name.to_owned(), blobs, config, manifest, index: json!({"mediaType": MANIFEST}) }
    }

    /// Writes the layout; `config`, `manifest` and `index` may have been bent. Each document's digest is right.
    pub(crate) fn write(self, to: &Path) -> PathBuf {
        let config = self.config.to_string();
        self.write_with(to, config.as_bytes())
    }

    /// The same with a configuration of these very bytes.
    pub(crate) fn write_with(mut self, to: &Path, config: &[u8]) -> PathBuf {
        fs::create_dir_all(to.join("blobs/sha256")).expect("a folder of our own");
        fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("writable");
        let about = &mut self.manifest["config"];
        let mut said = json!({"mediaType": CONFIG, "digest": digest(config), "size": config.len()});
        if let (Some(said), Some(bent)) = (said.as_object_mut(), about.as_object()) {
            said.extend(bent.clone());
        }
        *about = said;
        let manifest = self.manifest.to_string().into_bytes();
        let mut listed = json!({
            "digest": digest(&manifest), "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": self.name},
        });
        if let (Some(listed), Some(bent)) = (listed.as_object_mut(), self.index.as_object()) {
            listed.extend(bent.clone());
        }
        let index = json!({"schemaVersion": 2, "manifests": [listed]}).to_string();
        fs::write(to.join("index.json"), index).expect("writable");
        self.blobs.push((digest(config), config.to_vec()));
        self.blobs.push((digest(&manifest), manifest));
        for (digest, blob) in self.blobs {
            fs::write(blob_path(to, &digest), blob).expect("writable");
        }
        to.to_path_buf()
    }
}

pub(crate) fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes it")
}

/// A program that must be there and must succeed.
#[track_caller]
pub(crate) fn tool(command: &mut Command) -> Vec<u8> {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; `make test` installs it"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// What umoci unpacks from an image, which takes root: owners and devices are part of it.
pub(crate) fn unpacked(host: &Host, layout: &Path, name: &str) -> PathBuf {
    let bundle = host.scratch("unpacked");
    tool(Command::new("umoci").args(["unpack", "--image"]).arg(tagged(layout, name)).arg(&bundle));
    bundle.join("rootfs")
}

/// `LAYOUT:NAME`, as umoci wants it.
pub(crate) fn tagged(layout: &Path, name: &str) -> String {
    format!("{}:{name}", layout.display())
}

/// The program of `tests/guest`, static, built once.
pub(crate) fn walker() -> &'static Path {
    static WALKER: OnceLock<PathBuf> = OnceLock::new();
    WALKER.get_or_init(|| {
        const TARGET: &str = "x86_64-unknown-linux-gnu";
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-walk");
        tool(
            Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--release", "--package", "guest-walk", "--target", TARGET])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Crelocation-model=static")
                .env("CARGO_TARGET_DIR", &target),
        );
        target.join(TARGET).join("release/guest-walk")
    })
}
