// SPDX-License-Identifier: Apache-2.0
//! Images looked at, saved, pruned and mended, from the command line and beside what skopeo makes of them.

use crate::support::layout::{INDEX, Layer, Layout, MANIFEST, blob_path, digest, tool};
use crate::support::nasty::{Tar, file, folder};
use crate::support::registry::Registry;
use crate::support::{Host, Run, files, finish};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A layout of an image of two layers, the second of which says `text`.
fn layout(name: &str, text: &str, created: &str) -> Layout {
    let base = Tar::of(vec![folder("etc"), file("etc/big", [7; 70_000])]);
    let upon = Tar::of(vec![file("which", text)]);
    let mut layout = Layout::new(name, [base, upon].iter().map(|tar| Layer::gzip(tar)).collect());
    layout.config["created"] = json!(created);
    layout.config["config"] = json!({"Cmd": ["sh"], "Labels": {"from": text}});
    layout
}

fn load(host: &Host, layout: Layout) -> PathBuf {
    let written = tempfile::Builder::new().prefix("layout-").tempdir_in(host.root()).unwrap().keep();
    let written = layout.write(&written);
    host.isopod(&["load", "-q", "-i", written.to_str().unwrap()]).expect(0);
    written
}

fn document(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn skopeo(args: &[&str]) -> Value {
    let out = tool(Command::new("skopeo").arg("--insecure-policy").args(args));
    serde_json::from_slice(&out).unwrap_or_default()
}

/// What `image` asks `isopod` with a yes or a no on stdin.
fn answered(host: &Host, args: &[&str], answer: &str) -> Run {
    finish(host.command(args).stdin(Stdio::piped()).spawn().unwrap(), answer.as_bytes().to_vec())
}

fn names(host: &Host, args: &[&str]) -> String {
    let args = [&["images", "--format", "{{.Repository}}:{{.Tag}}"], args].concat();
    host.isopod(&args).expect(0).text().replace('\n', " ").trim().to_owned()
}

#[test]
fn what_is_saved_is_read_by_skopeo_both_ways_and_by_ourselves() {
    let host = Host::new();
    let loaded = load(&host, layout("tale:7", "one", "2024-01-01T00:00:00Z"));
    let digest = document(&loaded.join("index.json"))["manifests"][0]["digest"].clone();
    let archive = host.scratch("saved.tar");
    let to = archive.to_str().unwrap();
    host.isopod(&["save", "-q", "-o", to, "tale:7"]).expect(0);

    let (as_oci, from) = (host.scratch("oci"), format!("oci-archive:{to}:tale:7"));
    skopeo(&["copy", "--quiet", &from, &format!("oci:{}:x", as_oci.display())]);
    assert_eq!(document(&as_oci.join("index.json"))["manifests"][0]["digest"], digest);
    let config = skopeo(&["inspect", "--config", &format!("docker-archive:{to}:tale:7")]);
    assert_eq!(config["config"]["Labels"]["from"], "one");
    let again = format!("docker-archive:{}:again:1", host.scratch("again.tar").display());
    skopeo(&["copy", "--quiet", &format!("docker-archive:{to}:tale:7"), &again]);

    let other = Host::new();
    let told = other.isopod(&["load", "-q", "-i", to]).expect(0);
    assert_eq!(told.text(), "Loaded image: tale:7\n");
    let same = other.isopod(&["images", "-q", "--no-trunc"]).expect(0);
    assert_eq!(same.text().trim(), digest.as_str().unwrap());
}

#[test]
fn an_image_with_dockers_manifest_is_saved_with_one_that_readers_of_oci_archives_know() {
    let (host, registry) = (Host::new(), Registry::open());
    let one = layout("x", "one", "2024-01-01T00:00:00Z").write(&host.scratch("one"));
    registry.push_with(&["--format", "v2s2"], &format!("oci:{}:x", one.display()), "tale:7");
    let name = format!("{}/tale:7", registry.host());
    host.isopod(&["pull", "-q", &name]).expect(0);
    let archive = host.scratch("saved.tar");
    host.isopod(&["save", "-q", "-o", archive.to_str().unwrap(), &name]).expect(0);
    for form in ["oci-archive", "docker-archive"] {
        let config = skopeo(&["inspect", "--config", &format!("{form}:{}:{name}", archive.display())]);
        assert_eq!(config["config"]["Labels"]["from"], "one", "{form}");
    }
    Host::new().isopod(&["load", "-q", "-i", archive.to_str().unwrap()]).expect(0);
}

#[test]
fn the_same_images_make_the_same_archive_wherever_it_goes() {
    let host = Host::new();
    load(&host, layout("tale:7", "one", "2024-01-01T00:00:00Z"));
    load(&host, layout("tale:8", "two", "2024-01-02T00:00:00Z"));
    let (one, two) = (host.scratch("1.tar"), host.scratch("2.tar"));
    host.isopod(&["save", "-q", "-o", one.to_str().unwrap(), "tale:7", "tale:8"]).expect(0);
    let stream = host.isopod(&["save", "-q", "tale:8", "tale:7"]).expect(0);
    let repository = host.command(&["save", "-q", "tale"]).stdout(File::create(&two).unwrap()).status();
    assert!(repository.unwrap().success());
    assert!(fs::read(&one).unwrap() == stream.stdout, "in another order, and as a stream");
    assert!(fs::read(&two).unwrap() == stream.stdout, "all tags of the repository");
    let oci = host.isopod(&["save", "-q", "--format", "oci-archive", "tale:7"]).expect(0);
    let has = |name: &str| oci.stdout.windows(name.len()).any(|w| w == name.as_bytes());
    assert!(has("index.json") && !has("manifest.json"));
}

#[test]
fn a_save_that_fails_leaves_what_was_there() {
    let host = Host::new();
    let layout = load(&host, layout("tale:7", "one", "2024-01-01T00:00:00Z"));
    let (folder, target) = (host.scratch("out"), host.scratch("out/saved.tar"));
    fs::create_dir(&folder).unwrap();
    fs::write(&target, "precious").unwrap();
    let to = target.to_str().unwrap();
    let unknown = host.isopod(&["save", "-o", to, "tale:7", "never"]).expect(1);
    assert!(unknown.stderr.contains("there is no image"), "{}", unknown.stderr);
    let store = host.data_root().join("image/blobs/sha256");
    let layer = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|e| e.unwrap().path()).next().unwrap();
    let blob = store.join(layer.file_name().unwrap());
    let mut bytes = fs::read(&blob).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&blob, bytes).unwrap();
    host.isopod(&["save", "-o", to, "tale:7"]).expect(1);
    assert_eq!((fs::read(&target).unwrap(), files(&folder).len()), (b"precious".to_vec(), 1));
    let device = host.isopod(&["save", "-o", "/dev/null", "tale:7"]).expect(1);
    assert!(device.stderr.contains("no file"), "{}", device.stderr);
}

#[test]
fn a_reader_of_an_archive_may_go_away() {
    let host = Host::new();
    load(&host, layout("tale:7", &"much ".repeat(1 << 17), "2024-01-01T00:00:00Z"));
    let mut child = host.command(&["save", "-q", "tale:7"]).stdin(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), out.stderr), (Some(0), Vec::new()));
}

#[test]
fn images_are_listed_youngest_first_and_filtered_as_docker_does() {
    let host = Host::new();
    load(&host, layout("tale:7", "one", "2024-01-01T00:00:00Z"));
    load(&host, layout("user/app:1", "two", "2024-03-01T00:00:00Z"));
    load(&host, layout("tale:8", "three", "2024-02-01T00:00:00+02:00"));
    for (filters, expected) in [
        (&[][..], "user/app:1 tale:8 tale:7"),
        (&["tale"], "tale:8 tale:7"),
        (&["tale:7"], "tale:7"),
        (&["*/a*"], "user/app:1"),
        (&["--filter", "before=tale:8"], "tale:7"),
        (&["-f", "since=tale:7", "-f", "reference=tale"], "tale:8"),
        (&["--filter", "label=from=two"], "user/app:1"),
        (&["-a", "--filter", "label=from"], "user/app:1 tale:8 tale:7"),
        (&["--filter", "dangling=true"], ""),
    ] {
        assert_eq!(names(&host, filters), expected, "{filters:?}");
    }
    let unknown = host.isopod(&["images", "--filter", "colour=red"]).expect(1);
    assert!(unknown.stderr.contains("`colour`") && unknown.stderr.contains("before, dangling"));
}

#[test]
fn images_are_pruned_after_a_yes_and_what_that_frees_is_told() {
    let host = Host::new();
    load(&host, layout("tale:7", "one", "2024-01-01T00:00:00Z"));
    load(&host, layout("tale:7", "two", "2024-01-02T00:00:00Z"));
    assert_eq!(names(&host, &[]), "tale:7 <none>:<none>");
    for no in ["", "n\n", "perhaps\n"] {
        let refused = answered(&host, &["image", "prune"], no).expect(1);
        assert!(refused.stderr.contains("[y/N]") && refused.stderr.contains("-f"), "{}", refused.stderr);
    }
    let kept = host.isopod(&["image", "prune", "-f", "--filter", "until=2023-12-31"]).expect(0);
    assert_eq!(kept.text(), "Total reclaimed space: 0B\n");
    let pruned = answered(&host, &["image", "prune"], "y\n").expect(0);
    assert!(pruned.text().starts_with("Deleted Images:\ndeleted: sha256:"), "{}", pruned.text());
    assert!(!pruned.text().ends_with(": 0B\n"), "{}", pruned.text());
    assert_eq!(names(&host, &[]), "tale:7");
    let all = host.isopod(&["image", "prune", "-a", "-f"]).expect(0);
    assert!(all.text().contains("untagged: tale:7\ndeleted: sha256:"), "{}", all.text());
    assert_eq!(files(&host.data_root().join("image/disks/sha256")), Vec::<PathBuf>::new());
}

#[test]
fn what_is_taken_of_the_disk_is_told_and_what_leads_nowhere_is_removed() {
    let host = Host::without_templates();
    load(&host, layout("tale:7", "one", "2024-01-01T00:00:00Z"));
    let store = host.data_root().join("image");
    fs::create_dir(store.join("tmp/load-1-0")).unwrap();
    File::create(store.join("tmp/load-1-0/blob-0")).unwrap().write_all(&[1; 100_000]).unwrap();
    fs::write(store.join("blobs/sha256").join("a".repeat(64)), "nobody's").unwrap();
    let shares =
        |fields: &str| host.isopod(&["system", "df", "--format", fields]).expect(0).text().to_owned();
    let counts = "{{.Type}} {{.TotalCount}} {{.Active}}";
    let none = "Containers 0 0\nSnapshots 0 0\nTemplates 0 0\n";
    assert_eq!(shares(counts), format!("Images 1 0\n{none}Stray files 2 0\n"));
    let table = host.isopod(&["system", "df"]).expect(0);
    assert!(table.text().starts_with("TYPE"), "{}", table.text());
    assert!(table.text().contains("(100%)"), "{}", table.text());
    let verbose = host.isopod(&["system", "df", "-v"]).expect(0);
    assert!(verbose.text().contains("tale:7"), "{}", verbose.text());

    let pruned = host.isopod(&["system", "prune", "-f"]).expect(0);
    assert!(pruned.text().contains("Deleted Stray Files:\n2\n"), "{}", pruned.text());
    assert_eq!(shares(counts), format!("Images 1 0\n{none}Stray files 0 0\n"));
    let all = host.isopod(&["system", "prune", "-a", "-f"]).expect(0);
    assert!(all.text().contains("untagged: tale:7"), "{}", all.text());
    assert_eq!(shares("{{.Size}}").lines().collect::<Vec<_>>(), ["0B"; 5]);
    host.assert_clean();
}

#[test]
fn an_image_is_inspected_as_docker_tells_it() {
    let host = Host::new();
    load(&host, layout("tale:7", "one", "2024-01-01T00:00:00Z"));
    host.isopod(&["tag", "tale:7", "user/app:1"]).expect(0);
    let told: Value = serde_json::from_str(host.isopod(&["inspect", "tale:7"]).expect(0).text()).unwrap();
    let digest = told[0]["Id"].as_str().unwrap();
    assert_eq!(told[0]["RepoTags"], json!(["tale:7", "user/app:1"]));
    assert_eq!(told[0]["RepoDigests"], json!([format!("tale@{digest}"), format!("user/app@{digest}")]));
    assert_eq!(told[0]["Config"]["Labels"]["from"], "one");
    assert_eq!(told[0]["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let shown = |format: &str| {
        let args = ["image", "inspect", "-f", format, "tale:7"];
        host.isopod(&args).expect(0).text().to_owned()
    };
    assert_eq!(shown("{{.Os}}/{{.Architecture}} {{.Config.Cmd}}"), "linux/amd64 [sh]\n");
    assert_eq!(
        shown("{{index .Config.Labels \"from\"}} {{json .RepoTags}}"),
        "one [\"tale:7\",\"user/app:1\"]\n"
    );
    let missing = host.isopod(&["inspect", "tale:7", "never", "-f", "{{.Created}}"]).expect(1);
    assert_eq!(missing.text(), "2024-01-01T00:00:00Z\n");
    assert!(missing.stderr.contains("there is no image"), "{}", missing.stderr);
    let container = host.isopod(&["inspect", "--type", "container", "tale:7"]).expect(1);
    assert_eq!(container.text(), "[]\n");
}

#[test]
fn what_an_image_says_of_its_making_is_told_with_the_sizes_of_its_layers() {
    let host = Host::new();
    let mut layout = layout("tale:7", "one", "2024-01-01T00:00:00Z");
    let sizes: Vec<u64> = [0, 1].map(|n| layout.manifest["layers"][n]["size"].as_u64().unwrap()).into();
    layout.config["history"] = json!([
        {"created": "2020-01-01T00:00:00Z", "created_by": "ADD it"},
        {"created_by": "ENV \u{1b}]0;gotcha\u{7}", "empty_layer": true},
        {"created_by": "RUN ".to_owned() + &"very ".repeat(20), "comment": "buildkit"},
    ]);
    load(&host, layout);
    let args = ["history", "--human=false", "--format", "{{.CreatedBy}}|{{.Size}}|{{.Comment}}", "tale:7"];
    let told = host.isopod(&args).expect(0);
    let run = "RUN ".to_owned() + &"very ".repeat(8) + "…";
    let expected =
        format!("{run}|{}|buildkit\nENV \u{fffd}]0;gotcha\u{fffd}|0|\nADD it|{}|\n", sizes[1], sizes[0]);
    assert_eq!(told.text(), expected);
    let table = host.isopod(&["image", "history", "tale:7"]).expect(0);
    let lines: Vec<&str> = table.text().lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    );
    assert!(lines[2].starts_with("<missing>") && lines[3].contains("years ago"), "{}", table.text());
}

#[test]
fn a_manifest_is_shown_as_its_registry_has_it_and_nothing_is_pulled() {
    let (host, registry) = (Host::new(), Registry::open());
    let one = layout("tale:7", "one", "2024-01-01T00:00:00Z").write(&host.scratch("one"));
    registry.push(&format!("oci:{}:tale:7", one.display()), "tale:7");
    let name = format!("{}/tale:7", registry.host());
    let plain = host.isopod(&["manifest", "inspect", &name]).expect(0);
    assert_eq!(digest(&plain.stdout), registry.digest("tale:7"));
    let told = host.isopod(&["manifest", "inspect", "-v", &name]).expect(0);
    let told: Value = serde_json::from_str(told.text()).unwrap();
    assert_eq!(told["Ref"], format!("{name}@{}", digest(&plain.stdout)));
    assert_eq!(told["OCIManifest"]["layers"].as_array().unwrap().len(), 2);

    let manifest = fs::read(blob_path(&one, &digest(&plain.stdout))).unwrap();
    let member = json!({"mediaType": MANIFEST, "digest": digest(&manifest), "size": manifest.len(),
        "platform": {"os": "linux", "architecture": "amd64"}});
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [member]}).to_string();
    fs::write(blob_path(&one, &digest(list.as_bytes())), &list).unwrap();
    let listed = json!({"mediaType": INDEX, "digest": digest(list.as_bytes()), "size": list.len()});
    fs::write(one.join("index.json"), json!({"schemaVersion": 2, "manifests": [listed]}).to_string())
        .unwrap();
    registry.push_with(&["--all"], &format!("oci:{}", one.display()), "tale:8");
    let name = format!("{}/tale:8", registry.host());
    assert_eq!(host.isopod(&["manifest", "inspect", &name]).expect(0).text(), list);
    let told = host.isopod(&["manifest", "inspect", "-v", &name]).expect(0);
    let told: Value = serde_json::from_str(told.text()).unwrap();
    assert_eq!(told[0]["Ref"], format!("{name}@{}", digest(&manifest)));
    assert_eq!(told[0]["Descriptor"]["platform"]["os"], "linux");

    let never = host.isopod(&["manifest", "inspect", &format!("{}/never", registry.host())]).expect(1);
    assert!(never.stderr.contains("does not have it"), "{}", never.stderr);
    assert_eq!(host.isopod(&["images", "-q"]).expect(0).text(), "");

    host.isopod(&["pull", "-q", &name]).expect(0);
    let told = host.isopod(&["inspect", "-f", "{{index .RepoDigests 0}}", &name]).expect(0);
    let expected = format!("{}/tale@{}\n", registry.host(), digest(list.as_bytes()));
    assert_eq!(told.text(), expected, "the digest that its registry knows");
}

/// Changes the last byte of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

/// What of the store's images is wrong, each part once, and whether it was mended.
fn wrong(host: &Host, flags: &[&str], code: i32) -> Vec<String> {
    let args = [&["system", "verify", "-q", "--format", "{{.Part}} {{.Repaired}}"], flags].concat();
    let mut lines: Vec<_> = host.isopod(&args).expect(code).text().lines().map(str::to_owned).collect();
    lines.sort();
    lines.iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect()
}

#[test]
fn what_comes_of_layers_is_compared_with_what_their_blobs_make_and_made_again() {
    let host = Host::new();
    load(&host, layout("tale:7", "one", "2024-01-01T00:00:00Z"));
    load(&host, layout("tale:8", "two", "2024-01-01T00:00:00Z"));
    let store = host.data_root().join("image");
    let clean = host.isopod(&["system", "verify"]).expect(0);
    assert!(clean.stderr.contains("verified before") && clean.stderr.contains("nothing is wrong"));
    for made in ["disks/sha256", "images/sha256"] {
        files(&store.join(made))
            .iter()
            .filter(|f| fs::metadata(f).unwrap().len() > 0)
            .for_each(|f| damage(f));
    }
    // Two images of two layers, one of which is both's; only that has data of a page or more.
    let layers = ["layer data no", "layer index no", "layer index no", "layer index no"];
    assert_eq!(wrong(&host, &[], 1), layers);
    let mended = ["image index yes", "image index yes", "layer data yes"];
    assert_eq!(wrong(&host, &["--repair"], 0), [&mended[..], &["layer index yes"; 3]].concat());
    fs::remove_file(&files(&store.join("images/sha256"))[0]).unwrap();
    assert_eq!(wrong(&host, &[], 1), ["image index no"]);
    assert_eq!(wrong(&host, &["--repair"], 0), ["image index yes"]);
    assert_eq!(wrong(&host, &[], 0), Vec::<String>::new());
    assert_eq!(files(&store.join("tmp")), Vec::<PathBuf>::new());
}

#[test]
fn a_damaged_blob_is_fetched_again_from_the_registry_in_the_images_name() {
    let (host, registry) = (Host::new(), Registry::open());
    let one = layout("x", "one", "2024-01-01T00:00:00Z").write(&host.scratch("one"));
    registry.push(&format!("oci:{}:x", one.display()), "tale:7");
    let name = format!("{}/tale:7", registry.host());
    host.isopod(&["pull", "-q", &name]).expect(0);
    let blobs = files(&host.data_root().join("image/blobs/sha256"));
    assert_eq!(blobs.len(), 4, "a manifest, a configuration, two layers");
    blobs.iter().for_each(|blob| damage(blob));
    assert_eq!(wrong(&host, &[], 1), ["manifest no"]);
    let told = host.isopod(&["images"]).expect(1);
    assert!(told.stderr.contains("system verify"), "{}", told.stderr);
    let mended = ["configuration yes", "layer yes", "layer yes", "manifest yes"];
    assert_eq!(wrong(&host, &["--repair"], 0), mended);
    damage(&blobs[0]);
    drop(registry);
    let failed = host.isopod(&["system", "verify", "-q", "--repair"]).expect(1);
    assert!(failed.text().contains("no: cannot fetch sha256:"), "{}", failed.text());
    host.isopod(&["rmi", &name]).expect(0);
    assert_eq!(wrong(&host, &[], 0), Vec::<String>::new());
    host.assert_clean();
}

#[test]
fn an_image_goes_with_the_last_container_that_is_of_it_and_not_before() {
    let host = Host::new();
    host.isopod(&["run", "--name", "kept", "--entrypoint", "", "demo", "true"]).expect(0);
    let container = host.isopod(&["inspect", "--format", "{{.Name}} {{.State.ExitCode}}", "kept"]).expect(0);
    assert_eq!(container.text(), "/kept 0\n");
    let pruned = host.isopod(&["image", "prune", "-a", "-f"]).expect(0);
    assert_eq!(pruned.text(), "Total reclaimed space: 0B\n");
    let shares =
        host.isopod(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]).expect(0);
    assert!(shares.text().starts_with("Images 1 1\nContainers 1 0\n"), "{}", shares.text());
    let some = host.isopod(&["system", "prune", "-f"]).expect(0);
    assert!(some.text().starts_with("Deleted Containers:\n"), "{}", some.text());
    assert_eq!(names(&host, &[]), "isopod/demo:latest", "it has a name");
    let all = host.isopod(&["system", "prune", "-a", "-f"]).expect(0);
    assert!(all.text().contains("untagged: isopod/demo:latest"), "{}", all.text());
    host.assert_clean();
}
