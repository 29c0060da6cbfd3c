// SPDX-License-Identifier: Apache-2.0
//! The tree a guest sees is the tree umoci unpacks from the same image: every path, and all there is to say of it.
//!
//! One program, `tests/guest`, tells both trees. A second comparison takes contents from the index without a guest: every
//! file of every image is digested there. In a guest the nasty images' files are all digested too; of Debian's thousands
//! every 16th is, and of the 5 GiB file places all over it.
//!
//! Not everything is compared in a guest. What the runtime mounts over (`MOUNTED`) is only compared by the index. The
//! link count of a folder is overlayfs's own, which does not count a merged folder's subfolders. The time of a folder in
//! which a mount point had to be made is the time of that; no other path is excused.

use crate::support::layout::{Layer, Layout, blob_path, tool, unpacked, walker};
use crate::support::nasty::{Tar, file, hardlink};
use crate::support::{Host, debian, nasty};
use isopod_image::{Store, tree};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str;

const MOUNTED: [&str; 6] = ["/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys"];
const GIB_5: u64 = 5 << 30;

#[test]
fn a_guest_sees_debian_as_umoci_unpacks_it() {
    let host = Host::new();
    let layout = with_walker(&debian::layout(), &host.scratch("layout"));
    let told = compare(&host, &layout, debian::NAME, "16");
    assert!(told.len() > 3000, "only {} paths", told.len());
    assert!(told["/srv/raw"].ends_with("xattr:security.capability=0100000200200000000000000000000000000000"));
    assert!(!told.contains_key("/etc/debian_version"), "the third layer took it away");
}

#[test]
fn a_guest_sees_nasty_layers_as_umoci_unpacks_them() {
    let host = Host::new();
    let layers = nasty::layers().iter().map(|tar| Layer::gzip(tar)).chain([walker_layer()]).collect();
    let layout = Layout::new("nasty", layers).write(&host.scratch("layout"));
    let told = compare(&host, &layout, "nasty", "1");
    assert!(told["/usr/bin/dash"].contains(" nlink=4 "), "{}", told["/usr/bin/dash"]);
    assert!(told["/etc/passwd"].contains(" mtime=1700000000.123456789 "), "{}", told["/etc/passwd"]);
    assert!(told.contains_key(&format!("/{}", "n".repeat(255))));
}

#[test]
fn a_guest_sees_forty_layers_as_umoci_unpacks_them() {
    let host = Host::new();
    let mut layers: Vec<_> = (0..40).map(|n| Layer::gzip(&one_of_many(n))).collect();
    layers.push(walker_layer());
    let layout = Layout::new("many", layers).write(&host.scratch("layout"));
    let told = compare(&host, &layout, "many", "1");
    let kept: BTreeSet<_> = told.keys().map(String::as_str).filter(|path| path.starts_with("/f")).collect();
    assert_eq!(
        kept,
        BTreeSet::from(["/f38", "/f39"]),
        "each layer takes a file of the one before the last away"
    );
}

#[test]
fn a_guest_sees_a_sparse_file_of_5_gib_as_umoci_unpacks_it() {
    let host = Host::new();
    let layers = vec![Layer::gzip(&sparse()), walker_layer()];
    let layout = Layout::new("sparse", layers).write(&host.scratch("layout"));
    let told = compare(&host, &layout, "sparse", "1");
    assert!(told["/sparse"].contains(&format!(" size={GIB_5} ends=")), "{}", told["/sparse"]);

    let own = index_tree(&host, "sparse");
    let sum = tool(Command::new("sha256sum").arg(host.scratch("unpacked/rootfs/sparse")));
    let sum = String::from_utf8_lossy(&sum[..64]);
    assert!(own["/sparse"].contains(&format!(" sha256={sum}")), "{}", own["/sparse"]);
    let data = host.data_root().join("image/disks/sha256");
    let kept: u64 = fs::read_dir(data)
        .expect("a file of our own")
        .flatten()
        .map(|file| file.metadata().expect("a file of our own").len())
        .sum();
    assert!(kept < 16 << 20, "the store keeps {kept} bytes of a file that is holes");
}

/// Loads the image and compares three tellings of it: umoci's, the index's and the guest's. Gives the guest's.
fn compare(host: &Host, layout: &Path, name: &str, every: &str) -> BTreeMap<String, String> {
    host.isopod(&["load", "-q", "-i", layout.to_str().expect("text")]).expect(0);
    let root = unpacked(host, layout, name);
    let theirs = lines(&tool(Command::new(walker()).arg(&root).arg("1")));
    assert_same("index", &index_tree(host, name), &theirs);

    let run = host
        .run(&["--cap-add", "ALL", "-u", "0", "--entrypoint", "", name, "/walk", "/", every], Vec::new())
        .expect(0);
    let mut seen = lines(&run.stdout);
    let mounted: Vec<_> =
        seen.iter().filter(|(_, line)| *line == "mounted").map(|(path, _)| path.clone()).collect();
    assert_eq!(mounted, MOUNTED, "what the runtime mounts over");
    let beneath =
        |path: &String| mounted.iter().any(|over| path.starts_with(&format!("{over}/")) || path == over);
    seen.retain(|path, _| !beneath(path));
    let count = |what: &str| seen.values().filter(|line| line.contains(what)).count();
    let due = (count(" size=") - count(" ends=")) / every.parse::<usize>().expect("a number");
    assert!(count(" sha256=") >= due, "{} digests where {due} are due", count(" sha256="));
    let mut theirs = theirs;
    // A mount point that the image lacks is made, as by Docker, which changes the time of the folder it is made in.
    for made in MOUNTED.iter().filter(|path| !theirs.contains_key(**path)).collect::<Vec<_>>() {
        let (folder, _) = made.rsplit_once('/').expect("an absolute path");
        let folder = if folder.is_empty() { "/" } else { folder };
        for told in [&mut seen, &mut theirs] {
            let line = told.get_mut(folder).expect("both know the folder");
            *line = line.split(' ').filter(|word| !word.starts_with("mtime=")).collect::<Vec<_>>().join(" ");
        }
    }
    theirs.retain(|path, _| !beneath(path));
    assert_same("guest", &seen, &theirs);
    seen
}

/// What the index says, with the digest of every file.
fn index_tree(host: &Host, name: &str) -> BTreeMap<String, String> {
    let image = Store::open(host.data_root().join("image")).expect("a store").resolve(name).expect("loaded");
    let told: Vec<_> = tree::lines(&image).expect("an index").collect::<Result<_, _>>().expect("contents");
    lines(told.join("\n").as_bytes())
}

fn lines(told: &[u8]) -> BTreeMap<String, String> {
    let split = |line: &str| line.split_once(' ').map(|(path, rest)| (path.to_owned(), rest.to_owned()));
    str::from_utf8(told).expect("escaped").lines().map(|line| split(line).expect("words")).collect()
}

/// Ends the test unless both say the same of every path, as far as both say it.
#[track_caller]
fn assert_same(who: &str, ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) {
    let paths: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differ: Vec<_> = paths
        .iter()
        .map(|&path| (path, ours.get(path).map(String::as_str), theirs.get(path).map(String::as_str)))
        .filter(|(_, ours, theirs)| common(*ours, *theirs) != common(*theirs, *ours))
        .map(|(path, ours, theirs)| format!("{path}\n  {who} {ours:?}\n  umoci {theirs:?}"))
        .collect();
    let shown = differ.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(differ.is_empty(), "{} of {} paths differ:\n{shown}", differ.len(), paths.len());
}

/// The words of a line that can be compared with another line: without a folder's link count, and without a digest that
/// the other does not have.
fn common<'a>(line: Option<&'a str>, other: Option<&str>) -> Option<Vec<&'a str>> {
    let line = line?;
    let lacks = |kind: &str| !other.is_some_and(|other| other.contains(&format!(" {kind}")));
    let digest = |word: &str| ["sha256=", "ends="].iter().any(|kind| word.starts_with(kind) && lacks(kind));
    let links = |word: &str| line.starts_with("dir ") && word.starts_with("nlink=");
    Some(line.split(' ').filter(|word| !digest(word) && !links(word)).collect())
}

/// Nothing but the program that tells the tree.
fn walker_layer() -> Layer {
    Layer::gzip(&Tar::of([file("walk", fs::read(walker()).expect("a file of our own")).mode(0o755)]))
}

/// The same image with `walker_layer` on top.
fn with_walker(layout: &Path, to: &Path) -> PathBuf {
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
    };
    let blob = |digest: &Value| blob_path(layout, digest.as_str().expect("text"));
    let index = read(&layout.join("index.json"));
    let manifest = read(&blob(&index["manifests"][0]["digest"]));
    let config = read(&blob(&manifest["config"]["digest"]));
    let below = manifest["layers"].as_array().expect("a list");
    assert!(below.len() >= 3, "{manifest}");
    let mut layers: Vec<_> = below
        .iter()
        .zip(config["rootfs"]["diff_ids"].as_array().expect("a list"))
        .map(|(layer, id)| Layer {
            blob: fs::read(blob(&layer["digest"])).expect("a file of our own"),
            compression: "+gzip",
            diff_id: id.as_str().expect("text").to_owned(),
        })
        .collect();
    layers.push(walker_layer());
    Layout::new(debian::NAME, layers).write(to)
}

/// A layer that changes a file, adds two, and takes one of the layer before the last away.
fn one_of_many(n: u32) -> Vec<u8> {
    let mut tar = Tar::default();
    if n == 0 {
        nasty::mount_points().into_iter().for_each(|entry| tar.add(entry));
    }
    tar.add(file(format!("f{n}"), n.to_string()));
    tar.add(file("same", n.to_string()));
    if n > 1 {
        tar.add(file(format!(".wh.f{}", n - 2), ""));
    }
    let to = if n.is_multiple_of(2) { format!("f{n}") } else { "same".to_owned() };
    tar.add(hardlink(format!("h{n}"), &to));
    tar.finish()
}

/// A file of 5 GiB with 4 KiB at each end, in the form GNU tar gives it in PAX archives.
fn sparse() -> Vec<u8> {
    let mut tar = Tar::default();
    nasty::mount_points().into_iter().for_each(|entry| tar.add(entry));
    let mut data = format!("2\n0\n4096\n{}\n4096\n", GIB_5 - 4096).into_bytes();
    data.resize(512, 0);
    data.extend([b'A'; 4096]);
    data.extend([b'Z'; 4096]);
    tar.add(
        file("GNUSparseFile.0/sparse", data)
            .record("GNU.sparse.major", "1")
            .record("GNU.sparse.minor", "0")
            .record("GNU.sparse.name", "sparse")
            .record("GNU.sparse.realsize", GIB_5.to_string()),
    );
    tar.finish()
}
