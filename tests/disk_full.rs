// SPDX-License-Identifier: Apache-2.0
//! A disk without room: what does not fit is refused and says so, what was there stays whole, and removing images makes room
//! again though there is not a byte or a file left to do it with.

use crate::support::Host;
use crate::support::Run;
use crate::support::disk::{Disk, Kind};
use crate::support::layout::{Layer, Layout};
use crate::support::nasty::{Tar, file};
use crate::support::registry::Registry;
use crate::support::store::{Right, expect_nothing_else, listed, noise, small};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// A full disk of each kind: by its bytes, and by its files.
const DISKS: [(Kind, Full); 4] = [
    (Kind::Memory(8 * MIB, 500), Full::Bytes),
    (Kind::Memory(8 * MIB, 80), Full::Files),
    (Kind::File(8 * MIB, 500), Full::Bytes),
    (Kind::File(8 * MIB, 80), Full::Files),
];

#[derive(Debug, Clone, Copy)]
enum Full {
    Bytes,
    Files,
}

/// Two images that share a layer, and a registry with the second.
struct Images {
    kept: PathBuf,
    other: PathBuf,
    right: Right,
    registry: Registry,
    remote: String,
    _scratch: Host,
}

impl Images {
    fn new() -> Self {
        let scratch = Host::without_templates();
        let kept = small(&scratch.scratch("kept"), "kept:1", "shared");
        let other = small(&scratch.scratch("other"), "other:1", "shared");
        let registry = Registry::open();
        registry.push(&format!("oci:{}:other:1", other.display()), "other:1");
        let remote = format!("{}/other:1", registry.host());
        let mut right = Right::of([&*kept, &*other]);
        let pulled = Host::without_templates();
        pulled.isopod(&["pull", "-q", &remote]).expect(0);
        right.learn(&pulled.data_root().join("image"));
        Self { kept, other, right, registry, remote, _scratch: scratch }
    }
}

/// Leaves so many bytes or files.
fn fill(disk: &Disk, full: Full, but: u64) {
    match full {
        Full::Bytes => disk.fill(but),
        Full::Files => disk.fill_files(but),
    }
}

fn load(disk: &Disk, image: &Path) -> Run {
    disk.isopod(&["load", "-q", "-i", image.to_str().unwrap()])
}

#[track_caller]
fn expect_told(run: Run, case: &str) {
    let run = run.expect(1);
    for part in ["there is not enough space at ", " bytes", "hint:", "`isopod rmi`"] {
        assert!(run.stderr.contains(part), "{case}: no `{part}` in {}", run.stderr);
    }
}

#[test]
fn a_full_disk_takes_nothing_gives_everything_and_is_emptied_by_removing() {
    let images = Images::new();
    for (kind, full) in DISKS {
        let case = format!("{kind:?} without {full:?}");
        let disk = Disk::new(kind);
        load(&disk, &images.kept).expect(0);
        let before = listed(&disk.store(), &case);
        fill(&disk, full, 0);
        expect_told(load(&disk, &images.other), &format!("{case}, load"));
        expect_told(disk.isopod(&["pull", "-q", &images.remote]), &format!("{case}, pull"));
        expect_told(disk.isopod(&["tag", "kept:1", "again:1"]), &format!("{case}, tag"));
        assert_eq!(images.right.check(&disk.store(), &case), before);
        expect_nothing_else(&disk.store(), &case);
        disk.isopod(&["images", "-q"]).expect(0);
        assert!(disk.isopod(&["rmi", "kept:1"]).expect(0).text().contains("Deleted: "), "{case}");
        assert_eq!(listed(&disk.store(), &case).len(), 0, "{case}");
        expect_nothing_else(&disk.store(), &case);
        disk.drain();
        load(&disk, &images.other).expect(0);
        disk.isopod(&["pull", "-q", &images.remote]).expect(0);
        assert_eq!(images.right.check(&disk.store(), &case).len(), 2, "{case}");
        expect_nothing_else(&disk.store(), &case);
    }
    assert!(images.registry.requests("GET /v2/other/blobs/") > 0, "they were real pulls");
}

#[test]
fn many_names_are_taken_away_one_by_one_on_a_full_disk() {
    let images = Images::new();
    for kind in [Kind::Memory(8 * MIB, 500), Kind::File(8 * MIB, 500)] {
        let (case, disk) = (format!("{kind:?}"), Disk::new(kind));
        load(&disk, &images.kept).expect(0);
        // More than one block of them.
        let names: Vec<_> = (0..40).map(|n| format!("{}/{n}:1", "long".repeat(20))).collect();
        for name in &names {
            disk.isopod(&["tag", "kept:1", name]).expect(0);
        }
        disk.fill(0);
        for name in &names {
            disk.isopod(&["rmi", name]).expect(0);
        }
        assert_eq!(images.right.check(&disk.store(), &case).len(), 1, "{case}");
        expect_told(load(&disk, &images.other), &case);
        disk.isopod(&["image", "prune", "-a", "-f"]).expect(0);
        assert_eq!(listed(&disk.store(), &case).len(), 0, "{case}");
        expect_nothing_else(&disk.store(), &case);
    }
}

#[test]
fn a_disk_that_is_full_in_the_midst_of_it_is_left_as_it_was() {
    let images = Images::new();
    let mut refused = 0;
    for (kind, full) in DISKS {
        let disk = Disk::new(kind);
        load(&disk, &images.kept).expect(0);
        let before = listed(&disk.store(), "before");
        let step = match full {
            Full::Bytes => 128 << 10,
            Full::Files => 3,
        };
        for free in (0..6).map(|n| n * step) {
            let case = format!("{kind:?}, {free} of {full:?} are free");
            fill(&disk, full, free);
            let from_file = ["load", "-q", "-i", images.other.to_str().unwrap()];
            for args in [&from_file[..], &["pull", "-q", &images.remote]] {
                refused += u32::from(!fits(&disk, args, &case));
                assert_eq!(images.right.check(&disk.store(), &case), before);
                expect_nothing_else(&disk.store(), &case);
            }
            disk.drain();
        }
    }
    assert!((12..48).contains(&refused), "some fit and some do not: {refused}");
}

/// Whether there is room for what this brings, which is removed again.
#[track_caller]
fn fits(disk: &Disk, args: &[&str], case: &str) -> bool {
    let before = listed(&disk.store(), case);
    let run = disk.isopod(args);
    if run.code != Some(0) {
        expect_told(run, case);
        return false;
    }
    let new = listed(&disk.store(), case).into_keys().find(|name| !before.contains_key(name));
    disk.isopod(&["rmi", &new.unwrap()]).expect(0);
    true
}

#[test]
fn a_store_is_made_when_there_is_room_for_it() {
    let images = Images::new();
    let disk = Disk::new(Kind::Memory(4 * MIB, 60));
    disk.fill_files(12);
    expect_told(load(&disk, &images.kept), "no room for a store");
    disk.drain();
    load(&disk, &images.kept).expect(0);
    assert_eq!(images.right.check(&disk.store(), "there is room now").len(), 1);
    expect_nothing_else(&disk.store(), "there is room now");
}

#[test]
fn what_cannot_fit_is_refused_before_it_is_fetched_with_what_is_missing() {
    let scratch = Host::without_templates();
    let layer = Layer::gzip(&Tar::of([file("large", noise("large", 6 << 20))]));
    let size = layer.blob.len() as u64;
    let large = Layout::new("large:1", vec![layer]).write(&scratch.scratch("large"));
    let registry = Registry::open();
    registry.push(&format!("oci:{}:large:1", large.display()), "large:1");
    let disk = Disk::new(Kind::Memory(2 * MIB, 500));
    let run = disk.isopod(&["pull", "-q", &format!("{}/large:1", registry.host())]).expect(1);
    assert!(run.stderr.contains(&format!("have {size} bytes")), "{}", run.stderr);
    assert!(run.stderr.contains(" are missing"), "{}", run.stderr);
    // The configuration alone.
    assert_eq!(registry.requests("GET /v2/large/blobs/"), 1);
}
