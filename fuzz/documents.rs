// SPDX-License-Identifier: Apache-2.0
//! Indexes, manifests and configurations, around a layer that is as it should be. Their digests are right, so that what is
//! looked at is what they say. What is refused leaves nothing; what is taken can be listed, looked at, saved, and loaded again
//! from that as the same image.

use crate::layers::{folder, left_behind, member};
use arbitrary::{Arbitrary, Unstructured};
use isopod_image::{ArchiveForm, Digest, Store};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    name: Option<&'a str>,
    config: Document<'a>,
    manifest: Document<'a>,
    /// Between the listing and the manifest, if there is one.
    index: Option<Document<'a>>,
    listing: Document<'a>,
}

#[derive(Debug, Arbitrary)]
enum Document<'a> {
    Changed(Vec<Change<'a>>),
    Bytes(&'a [u8]),
}

#[derive(Debug, Arbitrary)]
struct Change<'a> {
    at: u8,
    to: New<'a>,
}

#[derive(Debug, Arbitrary)]
enum New<'a> {
    Null,
    Truth(bool),
    Number(i64),
    Text(&'a str),
    Usual(u8),
    Twice,
    Empty,
    Object(&'a str),
    Gone,
}

/// Where documents are changed; what a document does not have is made.
const PLACES: [&str; 26] = [
    "/schemaVersion",
    "/mediaType",
    "/config",
    "/config/digest",
    "/config/size",
    "/config/mediaType",
    "/layers",
    "/layers/0/digest",
    "/layers/0/size",
    "/layers/0/mediaType",
    "/layers/0/urls",
    "/manifests",
    "/manifests/0/platform",
    "/manifests/0/annotations",
    "/manifests/0/mediaType",
    "/os",
    "/architecture",
    "/created",
    "/rootfs",
    "/rootfs/type",
    "/rootfs/diff_ids",
    "/history",
    "/history/0",
    "/history/0/created_by",
    "/config/Labels",
    "/config/Env",
];
const USUAL: [&str; 8] = [INDEX, MANIFEST, CONFIG, LAYER, "linux", "amd64", "layers", "2024-01-01T00:00:00Z"];

pub(crate) fn images(bytes: &[u8]) {
    let Ok(input) = Unstructured::new(bytes).arbitrary::<Input<'_>>() else { return };
    let archive = archive(&input);
    let folder = folder();
    let store = Store::open(folder.path().join("store")).expect("a store can be made");
    match store.load_reader(&archive[..], &()) {
        Ok(loaded) => loaded.iter().for_each(|image| check(&store, image.digest)),
        Err(_) => assert!(store.list().is_ok_and(|list| list.is_empty()), "what was refused is listed"),
    }
    assert_eq!(left_behind(&folder.path().join("store").join("tmp")), 0, "left behind in the store");
}

/// An image that was taken in can be looked at, and comes out as it went in.
fn check(store: &Store, digest: Digest) {
    let name = digest.to_string();
    assert!(store.list().is_ok_and(|list| list.iter().any(|image| image.digest == digest)));
    assert_eq!(store.inspect(&name).expect("it is there").digest, digest);
    // A history may tell of layers that there are not.
    let _ = store.history(&name);
    assert_eq!(store.verify(None, &()).expect("verified"), []);
    let save = |store: &Store| {
        let mut saved = Vec::new();
        store.save(&[&name], ArchiveForm::Docker, &mut saved, &()).expect("saved");
        saved
    };
    let saved = save(store);
    let folder = folder();
    let other = Store::open(folder.path().join("store")).expect("a store can be made");
    let loaded = other.load_reader(&saved[..], &()).expect("loaded again");
    assert_eq!(loaded.iter().map(|image| image.digest).collect::<Vec<_>>(), [digest]);
    assert!(save(&other) == saved, "saved again it is something else");
}

fn archive(input: &Input<'_>) -> Vec<u8> {
    let layer = layer();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}, "created": "2024-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}, "history": [{"created_by": "x"}],
    });
    let config = input.config.written(config);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": described(CONFIG, &config),
        "layers": [described(LAYER, &layer)]});
    let manifest = input.manifest.written(manifest);
    let mut members = vec![layer, config];
    let mut listed = described(MANIFEST, &manifest);
    listed["platform"] = json!({"os": "linux", "architecture": "amd64"});
    members.push(manifest);
    if let Some(index) = &input.index {
        let index = index.written(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]}));
        listed = described(INDEX, &index);
        members.push(index);
    }
    if let Some(name) = input.name {
        listed["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    }
    let listing = input.listing.written(json!({"schemaVersion": 2, "manifests": [listed]}));
    let mut out = Vec::new();
    for bytes in members {
        member(&mut out, &format!("blobs/sha256/{}", Digest::of(&bytes).hex()), &bytes);
    }
    member(&mut out, "index.json", &listing);
    out.extend_from_slice(&[0; 1024]);
    out
}

fn layer() -> Vec<u8> {
    let mut layer = Vec::new();
    member(&mut layer, "file", b"contents");
    layer.extend_from_slice(&[0; 1024]);
    layer
}

fn described(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

impl Document<'_> {
    fn written(&self, mut document: Value) -> Vec<u8> {
        match self {
            Self::Changed(changes) => {
                changes.iter().for_each(|change| change.make(&mut document));
                document.to_string().into_bytes()
            }
            Self::Bytes(bytes) => bytes.to_vec(),
        }
    }
}

impl Change<'_> {
    fn make(&self, document: &mut Value) {
        let place = PLACES[usize::from(self.at) % PLACES.len()];
        let (parent, key) = place.rsplit_once('/').expect("each has a slash");
        let Some(parent) = document.pointer_mut(parent) else { return };
        let old = match parent {
            Value::Object(fields) if matches!(self.to, New::Gone) => return drop(fields.remove(key)),
            Value::Object(fields) => fields.entry(key).or_insert(Value::Null),
            Value::Array(list) => match list.first_mut() {
                Some(first) => first,
                None => return,
            },
            _ => return,
        };
        *old = match &self.to {
            New::Null | New::Gone => Value::Null,
            New::Truth(truth) => json!(truth),
            New::Number(number) => json!(number),
            New::Text(text) => json!(text),
            New::Usual(n) => json!(USUAL[usize::from(*n) % USUAL.len()]),
            New::Twice => json!([old.clone(), old.clone()]),
            New::Empty => json!([]),
            New::Object(key) => json!({*key: old.clone()}),
        };
    }
}
