// SPDX-License-Identifier: Apache-2.0
//! Images in the forms other tools save them in: whichever it is, the same tree is loaded, under the name it has.

use crate::support::layout::{Layer, Layout, gzip, tagged, tool};
use crate::support::nasty::{Tar, device, file, folder, hardlink, symlink};
use crate::support::{Host, finish};
use isopod_image::{Store, tree};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

fn layers() -> Vec<Layer> {
    let base = vec![folder("etc"), file("etc/first", "1"), file("gone", "g"), hardlink("same", "etc/first")];
    let upon = vec![
        file(".wh.gone", ""),
        symlink("link", "etc"),
        device(b'3', "null", 1, 3),
        file("big", [7; 70_000]),
    ];
    [base, upon].into_iter().map(|entries| Layer::gzip(&Tar::of(entries))).collect()
}

/// Loads from a file or a folder, or from standard input where there is none to name; gives the tree and what was printed.
fn loaded(source: &Path, from_stdin: bool) -> (Vec<String>, String) {
    let host = Host::new();
    let run = if from_stdin {
        let mut command = host.command(&["load", "-q"]);
        finish(command.stdin(File::open(source).unwrap()).spawn().unwrap(), Vec::new())
    } else {
        host.isopod(&["load", "-q", "-i", source.to_str().unwrap()])
    };
    let run = run.expect(0);
    let image = Store::open(host.data_root().join("image")).unwrap().resolve("tale:7").unwrap();
    let lines = tree::lines(&image).unwrap().collect::<Result<_, _>>().unwrap();
    host.assert_clean();
    (lines, run.text().to_owned())
}

#[test]
fn a_layout_and_the_archives_skopeo_makes_of_it_are_one_image_however_they_are_compressed() {
    let host = Host::new();
    let layout = Layout::new("tale:7", layers()).write(&host.scratch("layout"));
    let (tree, told) = loaded(&layout, false);
    assert_eq!(told, "Loaded image: tale:7\n");
    assert!(
        tree.iter().any(|line| line.starts_with("/link link "))
            && !tree.iter().any(|line| line.starts_with("/gone"))
    );
    for form in ["oci-archive", "docker-archive"] {
        let plain = host.scratch(form);
        let to = format!("{form}:{}:tale:7", plain.display());
        let from = format!("oci:{}", tagged(&layout, "tale:7"));
        tool(Command::new("skopeo").args(["copy", "--quiet", "--insecure-policy", &from, &to]));
        let bytes = fs::read(&plain).unwrap();
        let zipped = host.file(&format!("{form}.gz"), &gzip(&bytes));
        let pressed = host.file(&format!("{form}.zst"), &zstd::encode_all(&bytes[..], 3).unwrap());
        for source in [&plain, &zipped, &pressed] {
            for from_stdin in [false, true] {
                let (same, told) = loaded(source, from_stdin);
                assert_eq!(same, tree, "{} from stdin: {from_stdin}", source.display());
                assert_eq!(told, "Loaded image: tale:7\n", "{}", source.display());
            }
        }
    }
}

#[test]
fn images_are_listed_in_dockers_words_and_by_fields() {
    let host = Host::new();
    let layout = Layout::new("tale:7", layers()).write(&host.scratch("layout"));
    host.isopod(&["load", "-q", "-i", layout.to_str().unwrap()]).expect(0);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();

    let table = host.isopod(&["images"]).expect(0);
    let lines: Vec<Vec<&str>> = table.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    assert_eq!(lines[1][..3], ["tale", "7", &digest[7..19]]);
    assert_eq!(host.isopod(&["images", "-q", "--no-trunc"]).expect(0).text(), format!("{digest}\n"));
    let fields = host.isopod(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}"]).expect(0);
    assert_eq!(fields.text(), format!("tale:7 {digest}\n"));
    let object: serde_json::Value =
        serde_json::from_str(host.isopod(&["images", "--format", "json"]).expect(0).text()).unwrap();
    assert_eq!(object["Repository"], "tale");
    // A name may come with its registry, and an image may be asked for by its digest.
    for name in ["docker.io/library/tale:7", &digest[7..19]] {
        let run = host.isopod(&["run", "--kernel", "/no/kernel", name]).expect(125);
        assert!(run.stderr.contains("/no/kernel"), "`{name}` was found, its kernel was not: {}", run.stderr);
    }
}

#[test]
fn an_image_that_a_container_is_of_is_not_removed_from_under_it() {
    let host = Host::new();
    host.isopod(&["run", "--name", "kept", "--entrypoint", "", "demo", "true"]).expect(0);
    host.isopod(&["tag", "demo", "localhost:5000/mine:2"]).expect(0);
    let untagged = host.isopod(&["rmi", "localhost:5000/mine:2"]).expect(0);
    assert_eq!(untagged.text(), "Untagged: localhost:5000/mine:2\n");
    let refused = host.isopod(&["rmi", "demo"]).expect(1);
    assert!(refused.stderr.contains("container kept"), "{}", refused.stderr);
    host.isopod(&["rm", "kept"]).expect(0);
    let deleted = host.isopod(&["rmi", "demo"]).expect(0);
    assert!(deleted.text().contains("Untagged: isopod/demo:latest\nDeleted: sha256:"), "{}", deleted.text());
    assert_eq!(host.isopod(&["images", "-q"]).expect(0).text(), "");
    host.assert_clean();
}
