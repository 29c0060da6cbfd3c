// SPDX-License-Identifier: Apache-2.0
use super::*;
use serde_json::{Value, json};

fn blob(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(b"").to_string(), "size": 0})
}

fn manifest() -> Value {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": blob(CONFIG), "layers": [blob(LAYER)]})
}

fn parsed(media_type: &str, document: &Value) -> Result<Parsed> {
    parse(media_type, document.to_string().as_bytes())
}

fn with(field: &str, value: Value) -> Value {
    let mut document = manifest();
    document[field] = value;
    document
}

#[test]
fn oci_and_docker_manifests_are_read() {
    assert!(matches!(parsed(MANIFEST, &manifest()), Ok(Parsed::Manifest(_))));
    let docker = json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": blob(DOCKER_CONFIG),
        "layers": [blob(&format!("{DOCKER_LAYER}.gzip"))]});
    assert!(matches!(parsed(DOCKER_MANIFEST, &docker), Ok(Parsed::Manifest(_))));
    let index = json!({"schemaVersion": 2, "manifests": [blob(MANIFEST)]});
    assert!(matches!(parsed(INDEX, &index), Ok(Parsed::Index(_))));
}

#[test]
fn a_document_that_is_two_things_is_refused() {
    assert!(parsed(MANIFEST, &with("manifests", json!([]))).is_err());
    assert!(parsed(INDEX, &manifest()).is_err());
    assert!(parsed(MANIFEST, &with("mediaType", json!(INDEX))).is_err());
    assert!(parsed(MANIFEST, &json!({"schemaVersion": 2, "manifests": []})).is_err());
    assert!(parsed(MANIFEST, &with("schemaVersion", json!(3))).is_err());
    assert!(parsed(MANIFEST, &with("fsLayers", json!([]))).is_err());
    assert!(parsed("text/html", &manifest()).is_err());
}

#[test]
fn layers_that_cannot_be_used_are_refused_by_number() {
    let mut foreign = blob(LAYER);
    foreign["urls"] = json!(["http://example.com/"]);
    for bad in [
        foreign,
        blob("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        blob("application/vnd.oci.image.layer.nondistributable.v1.tar"),
        blob(&format!("{LAYER}+encrypted")),
        blob(CONFIG),
    ] {
        let error = parsed(MANIFEST, &with("layers", json!([blob(LAYER), bad]))).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().contains("layer 2 of 2"), "{error}");
    }
    assert_eq!(parsed(MANIFEST, &with("layers", json!([]))).unwrap_err().kind(), Kind::Invalid);
    assert!(parsed(MANIFEST, &with("config", blob(LAYER))).is_err());
}

#[test]
fn the_manifest_for_this_host_is_chosen() {
    let of = |os: &str, architecture: &str, variant: Option<&str>| Descriptor {
        media_type: MANIFEST.to_owned(),
        digest: Digest::of(format!("{os}{architecture}{variant:?}").as_bytes()),
        size: 0,
        platform: Some(Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }),
        urls: Vec::new(),
        annotations: BTreeMap::new(),
    };
    let host = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None };
    let all = [of("linux", "arm64", None), of("linux", "amd64", Some("v3")), of("linux", "amd64", None)];
    assert_eq!(choose(&all, &host).unwrap(), &all[2]);
    assert_eq!(choose(&all[..2], &host).unwrap(), &all[1]);
    let unknown = of("unknown", "unknown", None);
    let error = choose(&[all[0].clone(), unknown], &host).unwrap_err();
    assert_eq!(error.to_string(), "the image is for linux/arm64; this host needs linux/amd64");
}
