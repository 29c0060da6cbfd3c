// SPDX-License-Identifier: Apache-2.0
//! What a store of images must be after whatever befell it: an OCI layout in which every listed image is whole, to the byte.
//!
//! What is right is known beforehand: the same images, loaded by a run that nothing befell, leave the same files.

use super::layout::{Layer, Layout, digest, tool};
use super::nasty::{Tar, file, folder};
use super::{Host, files};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDERS: [&str; 3] = ["blobs/sha256", "disks/sha256", "images/sha256"];
/// All that may stand in a store's own folder.
const OWN: [&str; 9] =
    ["oci-layout", "index.json", "blobs", "disks", "images", "tmp", "turns", "lock", "reserve"];

/// An image's name and digest, for each that is listed.
pub(crate) type Listed = BTreeMap<String, String>;

/// The digest of each file that the images of these tests leave in a store, by its path there.
#[derive(Debug, Default)]
pub(crate) struct Right {
    files: BTreeMap<String, String>,
}

impl Right {
    /// What loading these leaves.
    pub(crate) fn of<'a>(sources: impl IntoIterator<Item = &'a Path>) -> Self {
        let host = Host::without_templates();
        for source in sources {
            host.isopod(&["load", "-q", "-i", source.to_str().expect("text")]).expect(0);
        }
        let mut right = Self::default();
        right.learn(&host.data_root().join("image"));
        right
    }

    /// What is in this store is right, too.
    pub(crate) fn learn(&mut self, store: &Path) {
        for folder in FOLDERS {
            for path in files(&store.join(folder)) {
                let name = path.file_name().expect("of a file").to_string_lossy().into_owned();
                let bytes = fs::read(&path).expect("readable");
                self.files.insert(format!("{folder}/{name}"), digest(&bytes));
            }
        }
    }

    /// Ends the test unless every listed image is whole. Gives what is listed.
    #[track_caller]
    pub(crate) fn check(&self, store: &Path, case: &str) -> Listed {
        for path in needed(store, case) {
            let bytes = fs::read(store.join(&path)).unwrap_or_else(|e| panic!("{case}: {path}: {e}"));
            let right = self.files.get(&path).unwrap_or_else(|| panic!("{case}: {path} is none of ours"));
            assert_eq!(&digest(&bytes), right, "{case}: {path} has other bytes");
        }
        listed(store, case)
    }
}

#[track_caller]
fn index(store: &Path, case: &str) -> Vec<Value> {
    let layout = fs::read_to_string(store.join("oci-layout")).unwrap_or_else(|e| panic!("{case}: {e}"));
    assert_eq!(layout, r#"{"imageLayoutVersion":"1.0.0"}"#, "{case}");
    let bytes = fs::read(store.join("index.json")).unwrap_or_else(|e| panic!("{case}: {e}"));
    let index: Value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|e| panic!("{case}: {e}: {}", String::from_utf8_lossy(&bytes)));
    index["manifests"].as_array().expect("a list").clone()
}

/// What `index.json` lists; an image without a name is its digest's.
#[track_caller]
pub(crate) fn listed(store: &Path, case: &str) -> Listed {
    let name = |listed: &Value| {
        let digest = listed["digest"].as_str().expect("a digest").to_owned();
        let name = listed["annotations"]["org.opencontainers.image.ref.name"].as_str();
        (name.map_or_else(|| digest.clone(), str::to_owned), digest)
    };
    index(store, case).iter().map(name).collect()
}

/// The files that the listed images are made of.
#[track_caller]
fn needed(store: &Path, case: &str) -> BTreeSet<String> {
    let hex = |value: &Value| value["digest"].as_str().expect("a digest").replace("sha256:", "");
    let document = |hex: &str| -> Value {
        let path = store.join("blobs/sha256").join(hex);
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{case}: {}: {e}", path.display()));
        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{case}: {}: {e}", path.display()))
    };
    let mut all = BTreeSet::new();
    for image in index(store, case) {
        let manifest = document(&hex(&image));
        all.insert(format!("images/sha256/{}.index", hex(&image)));
        let layers: Vec<_> = manifest["layers"].as_array().expect("a list").iter().map(hex).collect();
        for layer in &layers {
            all.extend(["data", "index"].map(|what| format!("disks/sha256/{layer}.{what}")));
        }
        let blobs = layers.into_iter().chain([hex(&image), hex(&manifest["config"])]);
        all.extend(blobs.map(|hex| format!("blobs/sha256/{hex}")));
    }
    all
}

/// Ends the test if a file is there that no listed image needs.
#[track_caller]
pub(crate) fn expect_nothing_else(store: &Path, case: &str) {
    let needed = needed(store, case);
    let mut left: Vec<PathBuf> = files(&store.join("tmp"));
    left.extend(files(&store.join("turns")));
    left.extend(files(store).into_iter().filter(|path| !OWN.iter().any(|own| path.ends_with(own))));
    for folder in FOLDERS {
        let kept = |path: &PathBuf| {
            let name = path.file_name().expect("of a file").to_string_lossy().into_owned();
            !needed.contains(&format!("{folder}/{name}"))
        };
        left.extend(files(&store.join(folder)).into_iter().filter(kept));
    }
    assert_eq!(left, Vec::<PathBuf>::new(), "{case}: files are left that nothing needs");
}

/// Ends the test unless skopeo copies every listed image out of the store.
#[track_caller]
pub(crate) fn expect_skopeo_reads(store: &Path, scratch: &Path, case: &str) {
    for name in listed(store, case).into_keys().filter(|name| !name.starts_with("sha256:")) {
        let from = format!("oci:{}:{name}", store.display());
        let to = format!("dir:{}", scratch.join("copied").display());
        tool(Command::new("skopeo").args(["copy", "--quiet", "--insecure-policy", &from, &to]));
    }
}

/// A layout of one image of two small layers; images with the same `lower` share it.
pub(crate) fn small(at: &Path, name: &str, lower: &str) -> PathBuf {
    let below = Tar::of([folder("etc"), file("etc/lower", lower.repeat(3000))]);
    let above = Tar::of([file("etc/name", name), file("big", noise(name, 300 << 10))]);
    let layers = [below, above].iter().map(|tar| Layer::gzip(tar)).collect();
    Layout::new(name, layers).write(at)
}

/// Bytes that nothing makes smaller, the same each time.
pub(crate) fn noise(seed: &str, len: usize) -> Vec<u8> {
    let blocks = (0..).flat_map(|n: u32| digest(format!("{seed} {n}").as_bytes()).into_bytes());
    blocks.take(len).collect()
}
