// SPDX-License-Identifier: Apache-2.0
//! What was said to be done is there after a power cut, to the byte; what was not is there or is not, and nothing is between.
//!
//! The data root is a file system in a file, from which the kernel writes nothing that it was not asked to. A command is killed
//! at a system call by which it changes something, and the file is copied: that is what a disk would have at that moment. The
//! copy is mounted as after a reboot. (The kernel's writes keep their order here: a disk that changes it is another test.)
//!
//! A usual run takes some moments of each command, evenly; `ISOPOD_TEST_TIMES=1000` takes all.

use crate::support::disk::{Disk, blank};
use crate::support::layout::tool;
use crate::support::points::{Point, kill_at, points, some_of};
use crate::support::registry::Registry;
use crate::support::store::{Listed, Right, expect_nothing_else, listed, small};
use crate::support::{Host, tell, times};
use std::path::{Path, PathBuf};
use std::process::Command;

const BYTES: u64 = 12 << 20;
const FILES: u64 = 600;
/// How many moments of a command are tried in a usual run.
const USUAL: u64 = 8;

struct Images {
    scratch: Host,
    kept: PathBuf,
    other: PathBuf,
    next: PathBuf,
    right: Right,
}

impl Images {
    fn new() -> Self {
        let scratch = Host::without_templates();
        let kept = small(&scratch.scratch("kept"), "kept:1", "shared");
        let other = small(&scratch.scratch("other"), "other:1", "shared");
        let next = small(&scratch.scratch("next"), "next:1", "of its own");
        let right = Right::of([&*kept, &*other, &*next]);
        Self { scratch, kept, other, next, right }
    }

    /// A disk, unmounted, with these images.
    fn disk(&self, images: &[&Path]) -> PathBuf {
        let file = blank(&self.scratch.scratch("before"), BYTES, FILES);
        let disk = Disk::of(Host::without_templates(), &file);
        for image in images {
            load(&disk, image);
        }
        file
    }
}

fn load(disk: &Disk, image: &Path) {
    disk.isopod(&["load", "-q", "-i", image.to_str().unwrap()]).expect(0);
}

fn copy(from: &Path, to: &Path) -> PathBuf {
    tool(Command::new("cp").args(["--sparse=always"]).arg(from).arg(to));
    to.to_path_buf()
}

/// What is listed, if there is a store at all.
fn if_any(store: &Path, case: &str) -> Listed {
    if store.join("index.json").exists() { listed(store, case) } else { Listed::new() }
}

/// A command in whose midst the power fails.
struct Cut<'a> {
    images: &'a Images,
    /// The disk as it was.
    before: &'a Path,
    args: &'a [&'a str],
}

impl Cut<'_> {
    fn disk(&self) -> (PathBuf, Disk) {
        let host = Host::without_templates();
        let file = copy(self.before, &host.scratch("disk"));
        let disk = Disk::of(host, &file);
        (file, disk)
    }

    fn everywhere(&self) {
        let (_, whole) = self.disk();
        let before = if_any(&whole.store(), "before");
        let all = points(&whole.host.command(self.args), whole.host.root(), |traced| whole.run(&traced));
        let after = listed(&whole.store(), "after");
        let of = all.len();
        let chosen = some_of(all, times(USUAL)).into_iter().map(Some).chain([None]);
        let mut cuts = 0;
        for point in chosen {
            cuts += 1;
            self.at(point.as_ref(), (&before, &after));
        }
        tell(&format!("{}: {cuts} power cuts, at some of {of} points and after it", self.args[0]));
    }

    /// Cuts the power at this point, or as soon as the command was done.
    fn at(&self, point: Option<&Point>, (before, after): (&Listed, &Listed)) {
        let (file, disk) = self.disk();
        let command = disk.host.command(self.args);
        let (run, moment) = match point {
            Some(point) => (kill_at(&command, point, |traced| disk.run(&traced)), format!("at {point}")),
            None => (disk.run(&command).expect(0), "when it was done".to_owned()),
        };
        let case = format!("{}, power cut {moment}", self.args[0]);
        let cut = Host::without_templates();
        let found = copy(&file, &cut.scratch("disk"));
        drop(disk);

        let disk = Disk::of(cut, &found);
        disk.isopod(&["images", "-q"]).expect(0);
        let now = self.images.right.check(&disk.store(), &case);
        assert!(&now == before || &now == after, "{case}: {now:?}");
        assert!(run.code != Some(0) || &now == after, "{case}: it was said to be done, and there is {now:?}");
        load(&disk, &self.images.next);
        assert_eq!(self.images.right.check(&disk.store(), &case).len(), now.len() + 1, "{case}");
        expect_nothing_else(&disk.store(), &case);
    }
}

#[test]
fn a_load_is_there_when_it_was_said_to_be_whenever_the_power_fails() {
    let images = Images::new();
    let before = images.disk(&[&images.kept]);
    let args = ["load", "-q", "-i", images.other.to_str().unwrap()];
    Cut { images: &images, before: &before, args: &args }.everywhere();
}

#[test]
fn a_first_load_is_there_when_it_was_said_to_be_whenever_the_power_fails() {
    let images = Images::new();
    let before = images.disk(&[]);
    let args = ["load", "-q", "-i", images.other.to_str().unwrap()];
    Cut { images: &images, before: &before, args: &args }.everywhere();
}

#[test]
fn a_pull_is_there_when_it_was_said_to_be_whenever_the_power_fails() {
    let (mut images, registry) = (Images::new(), Registry::open());
    registry.push(&format!("oci:{}:other:1", images.other.display()), "other:1");
    let name = format!("{}/other:1", registry.host());
    let pulled = Host::without_templates();
    pulled.isopod(&["pull", "-q", &name]).expect(0);
    images.right.learn(&pulled.data_root().join("image"));
    let before = images.disk(&[&images.kept]);
    Cut { images: &images, before: &before, args: &["pull", "-q", &name] }.everywhere();
}

#[test]
fn a_name_and_a_removal_are_lasting_whenever_the_power_fails() {
    let images = Images::new();
    let before = images.disk(&[&images.kept, &images.other]);
    for args in
        [["tag", "kept:1", "other:1"].as_slice(), &["rmi", "other:1"], &["image", "prune", "-a", "-f"]]
    {
        Cut { images: &images, before: &before, args }.everywhere();
    }
}
