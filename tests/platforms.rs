// SPDX-License-Identifier: Apache-2.0
//! Images for several platforms, and all tags of a repository: what is pulled of them, and what it is called then.

use crate::support::layout::{Layer, Layout, blob_path, digest, tool};
use crate::support::nasty::{Tar, file};
use crate::support::registry::Registry;
use crate::support::{Host, Run};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Pushes an image for these architectures; gives the digest of its index.
fn push(host: &Host, registry: &Registry, architectures: &[&str], name: &str) -> String {
    let layout = host.scratch(&name.replace(':', "-"));
    let mut manifests = Vec::new();
    for architecture in architectures {
        let layer = Layer::gzip(&Tar::of(vec![file("which", architecture)]));
        let mut image = Layout::new("x", vec![layer]);
        image.config["architecture"] = json!(architecture);
        image.write(&layout);
        let listed: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let mut listed = listed["manifests"][0].clone();
        listed["platform"] = json!({"os": "linux", "architecture": architecture});
        manifests.push(listed);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    let found = digest(index.as_bytes());
    fs::write(blob_path(&layout, &found), &index).unwrap();
    let listing = json!({"schemaVersion": 2, "manifests": [{"mediaType": INDEX, "digest": found,
        "size": index.len(), "annotations": {"org.opencontainers.image.ref.name": "x"}}]});
    fs::write(layout.join("index.json"), listing.to_string()).unwrap();
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]);
    copy.arg(format!("oci:{}:x", layout.display())).arg(format!("docker://{}/{name}", registry.host()));
    tool(&mut copy);
    found
}

fn run(host: &Host, args: &[&str]) -> Run {
    host.isopod(args)
}

#[test]
fn of_an_image_for_several_platforms_this_hosts_is_pulled_or_the_one_that_is_named() {
    let (host, registry) = (Host::new(), Registry::open());
    let index = push(&host, &registry, &["arm64", "amd64"], "a:1");
    let name = format!("{}/a:1", registry.host());
    run(&host, &["pull", "-q", &name]).expect(0);
    let by_index = format!("{}/a@{index}", registry.host());
    let asked = registry.requests("GET /v2/a/");
    let tagged = run(&host, &["tag", &by_index, "known:by-its-index"]).expect(0);
    assert_eq!(tagged.stderr, "");
    assert_eq!(registry.requests("GET /v2/a/"), asked, "the index is remembered");

    run(&host, &["pull", "-q", "--platform", "linux/arm64", &name]).expect(0);
    let refused = run(&host, &["run", "--rm", "--pull", "never", &name, "true"]).expect(125);
    assert!(refused.stderr.contains("the image is for linux/arm64"), "{}", refused.stderr);
    let list = run(&host, &["images", "-q"]).expect(0);
    assert_eq!(list.text().lines().count(), 2);
    let none = run(&host, &["pull", "--platform", "linux/s390x", &name]).expect(1);
    assert!(none.stderr.contains("linux/arm64, linux/amd64, not for linux/s390x"), "{}", none.stderr);
    let bad = run(&host, &["pull", "--platform", "a/b/c/d", &name]).expect(1);
    assert!(bad.stderr.contains("OS/ARCHITECTURE"), "{}", bad.stderr);
    host.assert_clean();
}

#[test]
fn all_tags_of_a_repository_are_pulled_and_none_may_be_named() {
    let (host, registry) = (Host::new(), Registry::open());
    for tag in ["one", "two"] {
        push(&host, &registry, &["amd64"], &format!("deep/er:{tag}"));
    }
    let repository = format!("{}/deep/er", registry.host());
    let pulled = run(&host, &["pull", "-q", "-a", &repository]).expect(0);
    assert_eq!(pulled.text(), format!("{repository}:one\n{repository}:two\n"));
    let list = run(&host, &["images", "--format", "{{.Repository}}:{{.Tag}}"]).expect(0);
    assert_eq!(list.text(), pulled.text());
    for named in [format!("{repository}:one"), format!("{repository}@{}", digest(b""))] {
        let refused = run(&host, &["pull", "-a", &named]).expect(1);
        assert!(refused.stderr.contains("without a tag"), "{}", refused.stderr);
    }
    let none = run(&host, &["pull", "-a", &format!("{}/none", registry.host())]).expect(1);
    assert!(none.stderr.contains("cannot list the tags"), "{}", none.stderr);
    host.assert_clean();
}
