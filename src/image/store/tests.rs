// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::config::Platform;
use crate::manifest::{CONFIG, LAYER, MANIFEST};
use crate::progress::LayerProgress;
use crate::tar::write::Writer;
use crate::tree;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::error::Error as StdError;
use std::io;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::slice::from_ref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tempfile::{TempDir, tempdir};

/// An OCI archive of one image.
struct Archive {
    members: Writer,
    layers: Vec<Value>,
    diff_ids: Vec<String>,
}

fn put(members: Writer, bytes: &[u8]) -> Writer {
    members.file(&format!("blobs/sha256/{}", &Digest::of(bytes).hex()[..]), bytes)
}

fn described(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

fn configuration(diff_ids: &[String]) -> Vec<u8> {
    let Platform { os, architecture, .. } = Platform::host();
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    let config = json!({"Cmd": ["sh"], "User": "web"});
    json!({"os": os, "architecture": architecture, "config": config, "rootfs": rootfs})
        .to_string()
        .into_bytes()
}

impl Archive {
    fn new(layers: &[Writer]) -> Self {
        let mut archive = Self { members: Writer::default(), layers: Vec::new(), diff_ids: Vec::new() };
        for layer in layers {
            let bytes = layer.clone().end();
            archive.members = put(archive.members, &bytes);
            archive.layers.push(described(LAYER, &bytes));
            archive.diff_ids.push(Digest::of(&bytes).to_string());
        }
        archive
    }

    fn end(self, name: Option<&str>) -> Vec<u8> {
        let config = configuration(&self.diff_ids);
        let manifest =
            json!({"schemaVersion": 2, "config": described(CONFIG, &config), "layers": self.layers});
        let manifest = manifest.to_string().into_bytes();
        let mut entry = described(MANIFEST, &manifest);
        if let Some(name) = name {
            entry["annotations"] = json!({REF_NAME: name});
        }
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        put(put(self.members, &config), &manifest).file("index.json", index.as_bytes()).end()
    }
}

fn layers() -> [Writer; 2] {
    let lower = Writer::default().folder("etc").file("etc/a", b"one").file("etc/b", b"two");
    [lower, Writer::default().file("etc/.wh.a", b"").file("c", &[7; 5000])]
}

fn store() -> (TempDir, Store) {
    let dir = tempdir().unwrap();
    let store = Store::with_limits(dir.path().join("image"), Limits::default()).unwrap();
    (dir, store)
}

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.insert(path);
    }
    found
}

fn names(image: &Image) -> Vec<String> {
    tree::lines(image).unwrap().map(|line| line.unwrap().split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn a_loaded_image_is_found_by_its_name_and_by_its_digest() {
    let (_dir, store) = store();
    let loaded = store.load_reader(&Archive::new(&layers()).end(Some("app:1"))[..], &()).unwrap();
    assert_eq!(loaded[0].reference.as_ref().unwrap().to_string(), "docker.io/library/app:1");
    let hex = loaded[0].digest.hex();
    for name in [
        "app:1",
        "docker.io/library/app:1",
        &hex,
        &hex[..6],
        &format!("sha256:{hex}"),
        &format!("app@sha256:{hex}"),
    ] {
        let image = store.resolve(name).unwrap();
        assert_eq!(names(&image), ["/", "/c", "/etc", "/etc/b"]);
        assert_eq!((image.config.user.as_str(), image.layers.len()), ("web", 2));
    }
    for name in ["app", "app:2", "ffff", "no such", "", "../../etc/passwd"] {
        let kind = store.resolve(name).unwrap_err().kind();
        assert!(matches!(kind, Kind::NotFound), "{name}");
    }
    let list = store.list().unwrap();
    assert_eq!((list.len(), list[0].layers), (1, 2));
}

#[test]
fn an_image_without_a_name_has_a_digest() {
    let (_dir, store) = store();
    let loaded = store.load_reader(&Archive::new(&layers()).end(None)[..], &()).unwrap();
    assert_eq!(loaded[0].reference, None);
    assert!(store.resolve(&loaded[0].digest.to_string()).is_ok());
    store.load_reader(&Archive::new(&layers()).end(Some("app"))[..], &()).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn a_name_moves_to_the_image_that_was_loaded_last() {
    let (_dir, store) = store();
    let [first, second] = layers();
    let old = store.load_reader(&Archive::new(&[first]).end(Some("app"))[..], &()).unwrap();
    let new = store.load_reader(&Archive::new(&[second]).end(Some("app"))[..], &()).unwrap();
    assert_eq!(store.resolve("app").unwrap().digest, new[0].digest);
    assert_eq!(store.resolve(&old[0].digest.to_string()).unwrap().reference, None);
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn what_docker_saves_is_loaded() {
    let (_dir, store) = store();
    let [lower, upper] = layers().map(Writer::end);
    let config = configuration(&[&lower, &upper].map(|l| Digest::of(l).to_string()));
    let saved = json!([{"Config": "c.json", "RepoTags": ["me/app:1", "me/app:2"], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    let archive = Writer::default()
        .file("a/layer.tar", &lower)
        .symlink("b/layer.tar", "../shared/upper.tar")
        .file("shared/upper.tar", &upper)
        .file("c.json", &config)
        .file("manifest.json", saved.to_string().as_bytes());
    let loaded = store.load_reader(&archive.end()[..], &()).unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(names(&store.resolve("me/app:2").unwrap()), ["/", "/c", "/etc", "/etc/b"]);
}

#[test]
fn a_member_that_is_a_link_out_of_the_archive_is_missing() {
    let (_dir, store) = store();
    let saved = json!([{"Config": "c.json", "RepoTags": null, "Layers": ["layer.tar"]}]);
    for link in ["/etc/passwd", "../../etc/passwd", "layer.tar"] {
        let archive = Writer::default()
            .symlink("layer.tar", link)
            .file("c.json", &configuration(&[Digest::of(b"").to_string()]))
            .file("manifest.json", saved.to_string().as_bytes());
        let error = store.load_reader(&archive.end()[..], &()).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

#[test]
fn a_load_that_fails_leaves_nothing() {
    let (dir, store) = store();
    store.load_reader(&Archive::new(&layers()).end(Some("app"))[..], &()).unwrap();
    let before = files(dir.path());
    let [good, _] = layers();
    let bad = [good, Writer::default().file("../x", b"")];
    let error = store.load_reader(&Archive::new(&bad).end(Some("app"))[..], &()).unwrap_err();
    let cause = StdError::source(&error).unwrap().to_string();
    assert!(cause.contains("layer 2 of 2 (sha256:"), "{cause}");
    let mut wrong = Archive::new(&layers());
    wrong.diff_ids.swap(0, 1);
    assert!(store.load_reader(&wrong.end(None)[..], &()).is_err());
    let mut wrong = Archive::new(&layers());
    wrong.layers[1]["size"] = json!(1);
    assert!(store.load_reader(&wrong.end(None)[..], &()).is_err());
    assert_eq!(files(dir.path()), before);
}

#[test]
fn what_a_dead_load_left_is_swept() {
    let (dir, store) = store();
    store.load_reader(&Archive::new(&layers()).end(Some("app"))[..], &()).unwrap();
    let before = files(dir.path());
    let dead = store.path("tmp").join("load-1-0");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("lock"), b"").unwrap();
    fs::write(dead.join("data-0"), b"half").unwrap();
    fs::write(store.path(&Place::LayerData(Digest::of(b"moved before it died")).path()), b"").unwrap();
    drop(store.stage().unwrap());
    assert_eq!(files(dir.path()), before);
    assert!(store.resolve("app").is_ok());
}

#[test]
fn a_removal_that_was_not_ended_is_ended_by_who_changes_the_store_next() {
    let (_dir, store) = store();
    store.load_reader(&Archive::new(&layers()).end(Some("app:1"))[..], &()).unwrap();
    let whole = files(&store.root);
    // As it is between the new list and the last file's removal.
    fs::remove_file(store.path("reserve")).unwrap();
    fs::write(store.path(&Place::LayerData(Digest::of(b"gone")).path()), b"data").unwrap();
    store.tag("app:1", &"app:2".parse().unwrap()).unwrap();
    assert_eq!(files(&store.root), whole);
    assert!(
        fs::metadata(store.path("reserve")).unwrap().len()
            >= fs::metadata(store.path("index.json")).unwrap().len()
    );
}

#[test]
fn a_disk_that_was_full_is_the_kind_of_whatever_failed_for_it() {
    let full = || io::Error::from(ErrorKind::StorageFull);
    let deep = io::Error::other(ImageError::invalid("inner").because(full()));
    assert_eq!(ImageError::invalid("outer").because(deep).kind(), Kind::NoSpace);
    assert_eq!(Err::<(), _>(full()).during("writing").unwrap_err().kind(), Kind::NoSpace);
    assert_eq!(ImageError::invalid("x").because(io::Error::other("y")).kind(), Kind::Invalid);
}

#[test]
fn a_load_under_way_is_not_swept() {
    let (_dir, store) = store();
    let running = store.stage().unwrap();
    let file = running.temporary().unwrap();
    drop(store.stage().unwrap());
    let place = Place::Blob(Digest::of(b""));
    running.settle(file, place).unwrap();
    assert!(running.open(place).is_ok());
}

#[test]
fn what_a_load_found_here_is_there_at_its_end_whoever_removed_it() {
    let (dir, store) = store();
    let archive = Archive::new(&layers()).end(Some("app"));
    store.load_reader(&archive[..], &()).unwrap();
    let before = files(&store.path("disks"));
    /// Removes the image when the second load has found all its layers.
    struct Remover<'a>(&'a Store, AtomicUsize);
    impl Progress for Remover<'_> {
        fn layer_done(&self, layer: &LayerProgress, present: bool) {
            assert!(present);
            if self.1.fetch_add(1, Ordering::SeqCst) + 1 == layer.of {
                self.0.remove("app", true, &mut |_| true).unwrap();
                assert!(files(&self.0.path("disks/sha256")).is_empty());
            }
        }
    }
    store.load_reader(&archive[..], &Remover(&store, AtomicUsize::new(0))).unwrap();
    assert_eq!(files(&store.path("disks")), before);
    assert_eq!(names(&store.resolve("app").unwrap()), ["/", "/c", "/etc", "/etc/b"]);
    assert!(
        files(&dir.path().join("image/turns")).is_empty() && files(&dir.path().join("image/tmp")).is_empty()
    );
}

#[test]
fn a_damaged_image_stands_in_no_other_ones_way_and_is_removed_like_it() {
    let (_dir, store) = store();
    let [lower, upper] = layers();
    let load = |layer: &Writer, name| {
        store.load_reader(&Archive::new(from_ref(layer)).end(Some(name))[..], &()).unwrap()[0].digest
    };
    let damaged = load(&lower, "damaged");
    load(&upper, "whole");
    fs::write(store.path(&Place::Blob(damaged).path()), b"no manifest").unwrap();
    assert!(store.remove("whole", false, &mut |_| true).unwrap().deleted.is_some());
    load(&upper, "whole");
    store.tag("whole", &"other".parse().unwrap()).unwrap();
    assert_eq!(store.remove("damaged", false, &mut |_| true).unwrap().deleted, Some(damaged));
    assert!(!store.path(&Place::Blob(damaged).path()).exists(), "what was kept for its sake has gone");
    assert_eq!(names(&store.resolve("other").unwrap()), ["/", "/c", "/etc"]);
}

#[test]
fn an_earlier_stores_layers_are_taken_over() {
    let (dir, store) = store();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    let plain = layers()[0].clone().end();
    packed.write_all(&plain).unwrap();
    let blob = packed.finish().unwrap();
    let mut archive = Archive::new(&[]);
    archive.members = put(archive.members, &blob);
    archive.layers.push(described(LAYER, &blob));
    archive.diff_ids.push(Digest::of(&plain).to_string());
    store.load_reader(&archive.end(Some("app"))[..], &()).unwrap();
    for (new, old) in places(Digest::of(&blob)).into_iter().zip(places(Digest::of(&plain))).skip(1) {
        fs::rename(store.path(&new.path()), store.path(&old.path())).unwrap();
    }
    fs::remove_dir_all(store.path("turns")).unwrap();
    let again = Store::with_limits(dir.path().join("image"), Limits::default()).unwrap();
    assert_eq!(names(&again.resolve("app").unwrap()), ["/", "/etc", "/etc/a", "/etc/b"]);
}

/// A worker that was taken over by its layer may say that it is another.
#[test]
fn a_layers_files_go_by_its_blob_and_not_by_what_it_is_said_to_be() {
    let (dir, store) = store();
    let plain = layers()[0].clone().end();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&plain).unwrap();
    let packed = packed.finish().unwrap();
    for (name, blob) in [("plain", &plain), ("packed", &packed)] {
        let mut archive = Archive::new(&[]);
        archive.members = put(archive.members, blob);
        archive.layers.push(described(LAYER, blob));
        archive.diff_ids.push(Digest::of(&plain).to_string());
        store.load_reader(&archive.end(Some(name))[..], &()).unwrap();
        let data = dir.path().join(format!("image/disks/sha256/{}.data", Digest::of(blob).hex()));
        assert!(data.exists(), "{name}");
        assert_eq!(names(&store.resolve(name).unwrap()), ["/", "/etc", "/etc/a", "/etc/b"]);
    }
}

#[test]
fn of_several_loads_of_one_image_one_takes_each_layer_in() {
    /// Counts what was not here.
    #[derive(Default)]
    struct Counter(AtomicUsize);
    impl Progress for Counter {
        fn layer_done(&self, _: &LayerProgress, present: bool) {
            self.0.fetch_add(usize::from(!present), Ordering::SeqCst);
        }
    }
    let (_dir, store) = store();
    let (archive, counter) = (Archive::new(&layers()).end(Some("app")), Counter::default());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| store.load_reader(&archive[..], &counter).unwrap());
        }
    });
    assert_eq!(counter.0.load(Ordering::SeqCst), 2);
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn nobody_else_can_look_into_the_store() {
    let (dir, store) = store();
    store.load_reader(&Archive::new(&layers()).end(Some("app"))[..], &()).unwrap();
    for path in files(dir.path()) {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn an_image_of_no_use_here_says_so() {
    let (_dir, store) = store();
    let error = store.load_reader(&b"not an archive"[..], &()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let error = store.load_reader(&Writer::default().file("a", b"").end()[..], &()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(store.load(Path::new("/no/such"), &()).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn an_image_goes_with_its_last_name_and_takes_what_only_it_needs() {
    let (dir, store) = store();
    let empty = files(&dir.path().join("image"));
    let [lower, upper] = layers();
    let load = |layers: &[Writer], name| {
        store.load_reader(&Archive::new(layers).end(Some(name))[..], &()).unwrap()[0].digest
    };
    let one = load(&[lower.clone(), upper], "one");
    let two = load(&[lower], "two");
    store.tag("one", &"localhost:5000/x:2".parse().unwrap()).unwrap();
    let name = |text: &str| text.parse::<Reference>().unwrap();
    let removed = store.remove("one", false, &mut |_| true).unwrap();
    assert_eq!(removed, Removed { untagged: vec![name("one")], deleted: None });
    let open = store.resolve("localhost:5000/x:2").unwrap();
    let removed = store.remove("localhost:5000/x:2", false, &mut |_| true).unwrap();
    assert_eq!(removed, Removed { untagged: vec![name("localhost:5000/x:2")], deleted: Some(one) });
    assert_eq!(names(&open), ["/", "/c", "/etc", "/etc/b"], "who has it open keeps it");
    assert_eq!(names(&store.resolve("two").unwrap()), ["/", "/etc", "/etc/a", "/etc/b"]);
    assert_eq!(store.remove(&two.to_string(), false, &mut |_| true).unwrap().deleted, Some(two));
    assert_eq!(files(&dir.path().join("image")), empty);
    assert_eq!(store.remove("two", false, &mut |_| true).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn an_image_of_several_names_is_not_removed_by_its_digest_alone() {
    let (_dir, store) = store();
    let digest = store.load_reader(&Archive::new(&layers()).end(Some("one"))[..], &()).unwrap()[0].digest;
    store.tag(&digest.hex()[..8], &"two".parse().unwrap()).unwrap();
    let refused = store.remove(&digest.hex(), false, &mut |_| true).unwrap_err();
    assert!(refused.kind() == Kind::InUse && refused.to_string().contains("library/two"), "{refused}");
    assert_eq!(store.list().unwrap().len(), 2);
    assert_eq!(store.remove(&digest.hex(), true, &mut |_| false).unwrap_err().kind(), Kind::InUse);
    assert_eq!(store.remove("two", false, &mut |_| false).unwrap().deleted, None);
    store.tag("one", &"two".parse().unwrap()).unwrap();
    assert_eq!(store.remove(&digest.hex(), true, &mut |_| true).unwrap().untagged.len(), 2);
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn a_name_is_taken_from_another_image_and_a_digest_is_no_name() {
    let (_dir, store) = store();
    let [lower, upper] = layers();
    let load = |layer, name| store.load_reader(&Archive::new(&[layer]).end(Some(name))[..], &()).unwrap();
    let (one, two) = (load(lower, "one")[0].digest, load(upper, "two")[0].digest);
    store.tag("one", &"two".parse().unwrap()).unwrap();
    assert_eq!(store.resolve("two").unwrap().digest, one);
    assert!(store.resolve(&two.to_string()).is_ok(), "it is here without a name");
    let digest = format!("x@{two}").parse().unwrap();
    assert_eq!(store.tag("one", &digest).unwrap_err().kind(), Kind::Invalid);
}
