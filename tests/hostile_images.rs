// SPDX-License-Identifier: Apache-2.0
//! Images that are refused: each with an error that says what of it is wrong, little memory, and no trace of it anywhere.

use crate::support::layout::{INDEX, Layer, Layout, blob_path, digest, gzip};
use crate::support::nasty::{Entry, Tar, checked, device, entry, file, folder, hardlink, header, symlink};
use crate::support::{Host, MEMORY_KIB, beneath, files, finish, watched};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Every verb but `run` fails with this.
const REFUSED: i32 = 1;
const NO_DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A test's folder with a store that has one image, a source that is hostile, and what must not be touched beside them.
struct Trial {
    host: Host,
    source: PathBuf,
    before: BTreeMap<PathBuf, (u64, i64, i64)>,
}

impl Trial {
    fn new(layout: impl FnOnce(&Path) -> PathBuf) -> Self {
        let host = Host::without_templates();
        fs::create_dir_all(host.scratch("canary/etc")).expect("a file of our own");
        fs::write(host.scratch("canary/etc/passwd"), "untouched").expect("a file of our own");
        let good =
            Layout::new("good", vec![Layer::gzip(&Tar::of([file("good", "")]))]).write(&host.scratch("good"));
        host.isopod(&["load", "-q", "-i", good.to_str().expect("text")]).expect(0);
        let source = layout(&host.scratch("hostile"));
        let before = snapshot(&host.scratch(""));
        Self { host, source, before }
    }

    /// The image is refused; gives what was said.
    #[track_caller]
    fn refused(&self, case: &str, said: &[&str]) -> String {
        let args = ["load", "-q", "-i", self.source.to_str().expect("text")];
        let (run, peak) = watched(&self.host.command(&args));
        assert_eq!(run.code, Some(REFUSED), "{case}: {}{}", run.stderr, run.text());
        for word in said {
            assert!(run.stderr.contains(word), "{case}: no `{word}` in: {}", run.stderr);
        }
        assert!(!run.stderr.contains("panicked"), "{case}: {}", run.stderr);
        assert!(run.stderr.len() < 4096, "{case}: an error of {} bytes", run.stderr.len());
        assert!(peak < MEMORY_KIB, "{case}: {peak} KiB of memory");
        let after = snapshot(&self.host.scratch(""));
        let changed: Vec<_> = after
            .keys()
            .chain(self.before.keys())
            .filter(|path| after.get(*path) != self.before.get(*path))
            .collect();
        assert!(changed.is_empty(), "{case}: changed {changed:?}");
        run.stderr
    }
}

/// Everything beneath a folder: size, mode, time of change (not for folders, nor for a lock).
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(next) = folders.pop() {
        for path in files(&next) {
            let about = fs::symlink_metadata(&path).expect("a file of our own");
            let mode = u64::from(about.mode()) << 48;
            if about.is_dir() {
                found.insert(path.clone(), (mode, 0, 0));
                folders.push(path);
            } else {
                found.insert(path, (mode | about.len(), about.mtime(), about.mtime_nsec()));
            }
        }
    }
    found
}

fn harmless() -> Vec<u8> {
    Tar::of([file("ok", "ok")])
}

fn image(layers: Vec<Layer>) -> Layout {
    Layout::new("hostile", layers)
}

/// A harmless layer with a hostile one upon it is refused, and both the layer and the entry are named.
#[track_caller]
fn refused_layer(case: &str, tar: &[u8], entry: &str) {
    let hostile = Layer::gzip(tar);
    // What shows only when layers are put together is told by what the layer is, not by how it came.
    let names = [digest(&hostile.blob), hostile.diff_id.clone()];
    let trial = Trial::new(|to| image(vec![Layer::gzip(&harmless()), hostile]).write(to));
    let said = trial.refused(case, &["layer 2 of 2", entry]);
    assert!(names.iter().any(|name| said.contains(name)), "{case}: {said}");
}

#[test]
fn names_that_lead_elsewhere_are_refused_by_layer_and_entry() {
    let cases: Vec<(&str, Vec<Entry>, &str)> = vec![
        ("absolute", vec![file("/etc/evil", "x")], "/etc/evil"),
        ("dotdot", vec![file("../evil", "x")], "../evil"),
        ("dotdot within", vec![file("a/../../evil", "x")], "a/../../evil"),
        ("write through a link up", vec![symlink("esc", "../../canary"), file("esc/evil", "x")], "esc/evil"),
        (
            "write through a chain",
            vec![symlink("a", "b"), symlink("b", "../.."), file("a/evil", "x")],
            "a/evil",
        ),
        ("write through a loop", vec![symlink("a", "b"), symlink("b", "a"), file("a/x", "")], "a/x"),
        ("hard link out", vec![hardlink("p", "../../etc/passwd")], "`p`"),
        ("hard link to the host", vec![hardlink("p", "/etc/passwd")], "`/p`"),
        ("hard link to a folder", vec![folder("d"), hardlink("p", "d")], "`p`"),
        ("hard link to itself", vec![hardlink("p", "p")], "`p`"),
        ("root a link", vec![symlink("./", "/")], "./"),
        ("root a file", vec![file(".", "")], "."),
        ("whiteout of nothing", vec![file(".wh.", "")], ".wh."),
        ("whiteout of the folder above", vec![file(".wh...", "")], ".wh..."),
        ("NUL in a name", vec![file("a", "").record("path", b"a\0b")], "`a`"),
        ("NUL in a target", vec![symlink("a", "x").record("linkpath", b"a\0b")], "`a`"),
        ("a long name", vec![file("n".repeat(256), "")], "nnn"),
        ("a long path", vec![file("d/".repeat(500_000) + "x", "")], "d/d/d"),
        ("a file as a folder", vec![file("f", "1"), file("f/g", "2")], "f/g"),
        ("an unknown type", vec![entry(b'V', "v")], "`v`"),
        ("a device of no kernel's", vec![device(b'3', "dev", 0o7_777_777, 1)], "`dev`"),
    ];
    for (case, entries, named) in cases {
        refused_layer(case, &Tar::of(entries), named);
    }
}

/// Devices and links are legal: they are lines of an index, and nothing of the host's.
#[test]
fn devices_and_links_of_an_image_are_never_the_hosts() {
    let tar = Tar::of([
        symlink("esc", "/canary"),
        device(b'3', "null", 1, 3),
        device(b'4', "disk", 8, 0),
        entry(b'6', "fifo"),
    ]);
    let trial = Trial::new(|to| image(vec![Layer::gzip(&tar)]).write(to));
    trial.host.isopod(&["load", "-q", "-i", trial.source.to_str().expect("text")]).expect(0);
    let store = trial.host.data_root();
    for (path, about) in snapshot(&trial.host.scratch("")) {
        let kind = about.0 >> 48 & 0o170_000;
        assert!(kind == 0o040_000 || kind == 0o100_000, "{} is neither folder nor file", path.display());
        assert!(
            path.starts_with(&store) || trial.before.contains_key(&path),
            "{} is outside the store",
            path.display()
        );
    }
}

#[test]
fn malformed_archives_are_refused_by_layer() {
    let sized = |size: &[u8]| {
        let mut block = header(b'0', b"v", 0);
        block[124..136].copy_from_slice(size);
        [&checked(block)[..], &[0; 1024]].concat()
    };
    let sparse = |map: &str, size: &str| {
        Tar::of([file("x", "hellothere").record("GNU.sparse.map", map).record("GNU.sparse.size", size)])
    };
    let mut wrong_sum = header(b'0', b"v", 0);
    wrong_sum[0] ^= 1;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a wrong checksum", [&wrong_sum[..], &[0; 1024]].concat(), ""),
        ("a size beyond the end", sized(b"77777777777\0"), "`v`"),
        ("a size below zero", sized(&[0xff; 12]), ""),
        ("a size beyond 63 bits", sized(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), ""),
        ("a header of 1 GiB", [&header(b'x', b"P", 1 << 30)[..], &[0; 1 << 20]].concat(), ""),
        ("cut in a file", Tar::of([file("f", [1; 5000])])[..3000].to_vec(), "`f`"),
        ("no archive at all", b"this is no archive".repeat(100), ""),
        ("pieces that overlap", sparse("0,5,3,5", "100"), "`x`"),
        ("a piece beyond the end", sparse("0,5,98,5", "100"), "`x`"),
        ("a time that is none", Tar::of([file("x", "").mtime("1e9")]), "`x`"),
        ("an attribute of 70 kB", Tar::of([file("x", "").xattr("user.x", [b'v'; 70_000])]), "`x`"),
        ("64 MiB of zeros behind", [harmless(), vec![0; 64 << 20]].concat(), ""),
        ("garbage behind", [harmless(), b"garbage!".repeat(64)].concat(), ""),
    ];
    for (case, tar, named) in cases {
        refused_layer(case, &tar, named);
    }
}

#[test]
fn streams_that_are_broken_or_swell_are_refused_by_layer() {
    let swollen = |make: fn(&mut dyn Write) -> io::Result<()>| {
        let mut tar = Vec::new();
        make(&mut tar).map(|()| tar).expect("memory takes it")
    };
    let good = gzip(&harmless());
    let mut wrong_sum = good.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    let cases: Vec<(&str, Vec<u8>, &'static str)> = vec![
        ("gzip cut short", good[..good.len() - 10].to_vec(), "+gzip"),
        ("gzip with garbage behind", [&good[..], b"garbage"].concat(), "+gzip"),
        ("gzip with a wrong sum", wrong_sum, "+gzip"),
        ("gzip that swells", swollen(gzip_bomb), "+gzip"),
        ("zstd that swells", swollen(zstd_bomb), "+zstd"),
        (
            "zstd that asks for a window of 2 GiB",
            [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0xa8][..], &[0; 100]].concat(),
            "+zstd",
        ),
        ("a million entries", swollen(million), "+gzip"),
    ];
    for (case, blob, compression) in cases {
        let about = digest(&blob);
        let diff_id = digest(&harmless());
        let trial = Trial::new(|to| image(vec![Layer { blob, compression, diff_id }]).write(to));
        trial.refused(case, &["layer 1 of 1", &about]);
    }
}

/// A file of 1 GiB that is no hole, in about a thousandth of it.
fn bomb(to: &mut dyn Write) -> io::Result<()> {
    to.write_all(&header(b'0', b"bomb", 1 << 30))?;
    io::copy(&mut io::repeat(b'A').take(1 << 30), to)?;
    to.write_all(&[0; 1024])
}

fn gzip_bomb(to: &mut dyn Write) -> io::Result<()> {
    let mut encoder = GzEncoder::new(to, Compression::fast());
    bomb(&mut encoder)?;
    encoder.finish().map(drop)
}

fn zstd_bomb(to: &mut dyn Write) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(to, 1)?;
    bomb(&mut encoder)?;
    encoder.finish().map(drop)
}

fn million(to: &mut dyn Write) -> io::Result<()> {
    let mut encoder = GzEncoder::new(to, Compression::fast());
    for n in 0..1_500_000 {
        encoder.write_all(&header(b'0', format!("{n:050}").as_bytes(), 0))?;
    }
    encoder.write_all(&[0; 1024])?;
    encoder.finish().map(drop)
}

#[test]
fn documents_that_lie_are_refused() {
    type Bend = fn(&mut Layout);
    let cases: Vec<(&str, Bend, &str)> = vec![
        (
            "no layers",
            |l| (l.manifest["layers"], l.config["rootfs"]["diff_ids"]) = (json!([]), json!([])),
            "no layers",
        ),
        ("layers and manifests", |l| l.manifest["manifests"] = json!([]), "both layers and manifests"),
        (
            "a layer of an unknown type",
            |l| l.manifest["layers"][0]["mediaType"] = json!("application/x-evil"),
            "layer 1 of 1",
        ),
        (
            "a configuration of an unknown type",
            |l| l.manifest["config"]["mediaType"] = json!("application/x-evil"),
            "x-evil",
        ),
        ("a manifest of an unknown type", |l| l.index["mediaType"] = json!("application/x-evil"), "x-evil"),
        ("a manifest of another type", |l| l.manifest["mediaType"] = json!(INDEX), "media type"),
        (
            "a foreign layer",
            |l| l.manifest["layers"][0]["urls"] = json!(["http://127.0.0.1/"]),
            "layer 1 of 1",
        ),
        ("a layer longer than said", |l| resize(l, -1), "layer 1 of 1"),
        ("a layer shorter than said", |l| resize(l, 1), "layer 1 of 1"),
        (
            "a layer that is not there",
            |l| l.manifest["layers"][0]["digest"] = json!(NO_DIGEST),
            "layer 1 of 1",
        ),
        ("a configuration longer than said", |l| l.manifest["config"]["size"] = json!(1), "configuration"),
        (
            "more layers than said",
            |l| l.config["rootfs"]["diff_ids"] = json!([NO_DIGEST, NO_DIGEST]),
            "layers",
        ),
        ("a layer that is another", |l| l.config["rootfs"]["diff_ids"] = json!([NO_DIGEST]), "layer 1 of 1"),
        ("another architecture", |l| l.config["architecture"] = json!("s390x"), "s390x"),
        ("another system", |l| l.config["os"] = json!("windows"), "windows"),
        (
            "a digest that is a path",
            |l| l.manifest["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd"),
            "is not `sha256:`",
        ),
        (
            "a digest in capitals",
            |l| l.manifest["layers"][0]["digest"] = json!(NO_DIGEST.replace('0', "A")),
            "is not `sha256:`",
        ),
        ("a short digest", |l| l.manifest["layers"][0]["digest"] = json!("sha256:00"), "is not `sha256:`"),
        (
            "a digest of another kind",
            |l| l.manifest["layers"][0]["digest"] = json!("md5:00"),
            "is not `sha256:`",
        ),
        ("an empty digest", |l| l.manifest["layers"][0]["digest"] = json!(""), "is not `sha256:`"),
    ];
    for (case, bend, said) in cases {
        let trial = Trial::new(|to| {
            let mut layout = image(vec![Layer::gzip(&harmless())]);
            bend(&mut layout);
            layout.write(to)
        });
        trial.refused(case, &[said]);
    }
}

fn resize(layout: &mut Layout, by: i64) {
    let size = &mut layout.manifest["layers"][0]["size"];
    *size = json!(size.as_i64().expect("a number") + by);
}

#[test]
fn documents_that_are_no_json_or_too_much_of_it_are_refused() {
    let doubled =
        br#"{"os":"linux","os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let trial = Trial::new(|to| image(vec![Layer::gzip(&harmless())]).write_with(to, doubled));
    trial.refused("a key twice", &["os"]);
    let huge = format!(r#"{{"x":"{}"}}"#, "a".repeat(5 << 20));
    let deep = "[".repeat(100_000);
    for (case, index) in
        [("not json", "{"), ("a mark before it", "\u{feff}{}"), ("deep", &deep), ("5 MiB", &huge)]
    {
        let trial = Trial::new(|to| {
            let layout = image(vec![Layer::gzip(&harmless())]).write(to);
            fs::write(to.join("index.json"), index).expect("a file of our own");
            layout
        });
        trial.refused(case, &["index"]);
    }
}

#[test]
fn blobs_that_are_not_what_their_names_say_are_refused() {
    let layer = Layer::gzip(&harmless());
    let (blob, about) = (layer.blob.clone(), digest(&layer.blob));
    let trial = Trial::new(|to| {
        let layout = image(vec![layer]).write(to);
        let mut other = blob.clone();
        // The time in gzip's header: the contents are as they should be, only the digest is not.
        other[4] ^= 1;
        fs::write(blob_path(to, &about), other).expect("a file of our own");
        layout
    });
    trial.refused("another digest", &["layer 1 of 1", &about]);

    let trial = Trial::new(|to| {
        let layout =
            image(vec![Layer { blob: blob.clone(), compression: "+gzip", diff_id: digest(&harmless()) }])
                .write(to);
        fs::rename(blob_path(to, &about), to.join("elsewhere")).expect("a file of our own");
        unix::fs::symlink(to.join("elsewhere"), blob_path(to, &about)).expect("a file of our own");
        layout
    });
    trial.refused("a link in a blob's place", &["layer 1 of 1", &about]);
}

/// The names of a layer's entries never reach the host's kernel.
#[test]
fn no_path_of_the_host_is_ever_asked_for_by_a_name_from_an_archive() {
    let entries = [
        folder("marked-folder"),
        file("marked-folder/marked-file", "x"),
        symlink("marked-link", "/marked-target"),
        hardlink("marked-hard", "marked-folder/marked-file"),
        file(".wh.marked-gone", ""),
        device(b'3', "marked-device", 1, 3),
    ];
    let hostile = file("../../marked-evil", "x");
    for (entries, code) in [(entries.to_vec(), 0), (entries.into_iter().chain([hostile]).collect(), REFUSED)]
    {
        let trial = Trial::new(|to| image(vec![Layer::gzip(&Tar::of(entries))]).write(to));
        let trace = trial.host.scratch("trace");
        let plain = trial.host.command(&["load", "-q", "-i", trial.source.to_str().expect("text")]);
        let args = ["-f", "-s", "4096", "-e", "trace=%file", "-o", trace.to_str().expect("text")];
        let mut traced = beneath("strace", &args, &plain);
        finish(traced.spawn().expect("`make test` installs strace"), Vec::new()).expect(code);
        let trace = fs::read_to_string(trace).expect("a file of our own");
        assert!(trace.contains("index.json"), "the trace shows files");
        let asked: Vec<_> = trace.lines().filter(|line| line.contains("marked-")).collect();
        assert!(asked.is_empty(), "{asked:#?}");
    }
}
