// SPDX-License-Identifier: Apache-2.0
//! A command that is killed at a system call by which it changes the store has happened or has not: what is listed is
//! whole, what is not is gone when the next one is done, and nobody has to mend anything. So it is if the call fails:
//! a usual run takes some of the calls, evenly, and one with `ISOPOD_TEST_TIMES=1000` all.

use crate::support::layout::tool;
use crate::support::points::{fail_at, here, kill_at, points, some_of};
use crate::support::registry::Registry;
use crate::support::store::{Listed, Right, expect_nothing_else, expect_skopeo_reads, listed, small};
use crate::support::{Host, Run, tell, times};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// At how many points a command is killed in a usual run, and at how many it fails.
const USUAL: (u64, u64) = (16, 6);

/// Images as layouts: two that share a layer, one that comes after the fault.
struct Images {
    kept: PathBuf,
    other: PathBuf,
    next: PathBuf,
    right: Right,
}

impl Images {
    fn new(host: &Host) -> Self {
        let kept = small(&host.scratch("kept"), "kept:1", "shared");
        let other = small(&host.scratch("other"), "other:1", "shared");
        let next = small(&host.scratch("next"), "next:1", "of its own");
        let right = Right::of([&*kept, &*other, &*next]);
        Self { kept, other, next, right }
    }
}

fn load(host: &Host, image: &Path) {
    host.isopod(&["load", "-q", "-i", image.to_str().unwrap()]).expect(0);
}

/// A command that something befalls, and what it is done to.
struct Trial<'a> {
    images: &'a Images,
    /// Has the store as it was before.
    before: &'a Host,
    args: &'a [&'a str],
    /// How the command ends if it is given again after it had happened.
    again: i32,
}

impl Trial<'_> {
    /// A host whose store is as it was before.
    fn host(&self) -> Host {
        let host = Host::without_templates();
        let from = format!("{}/.", self.before.data_root().display());
        fs::create_dir(host.data_root()).unwrap();
        tool(Command::new("cp").args(["-a", &from]).arg(host.data_root()));
        host
    }

    /// Kills the command at each of its points, and lets each of its calls fail.
    fn everywhere(&self) {
        let whole = self.host();
        let all = points(&whole.command(self.args), whole.root(), here);
        let store = |host: &Host| host.data_root().join("image");
        let ends = (listed(&store(self.before), "before"), listed(&store(&whole), "after"));
        let mut seen = BTreeSet::new();
        let (killing, failing) = (some_of(all.clone(), times(USUAL.0)), some_of(all.clone(), times(USUAL.1)));
        let (mut killed, mut tried) = (0, 0);
        for point in &all {
            let case = |what| format!("{} {what} at {point}", self.args[0]);
            if !killing.contains(point) && !failing.contains(point) {
                continue;
            }
            tried += 1;
            let host = self.host();
            let run = kill_at(&host.command(self.args), point, here);
            killed += usize::from(run.code != Some(0));
            self.has_happened_or_not(&host, (&run, &ends), &case("killed"));
            // What skopeo makes of a listing does not depend on how it came to be.
            if seen.insert(fs::read(store(&host).join("index.json")).unwrap()) {
                expect_skopeo_reads(&store(&host), host.root(), &case("killed"));
            }
            if !failing.contains(point) {
                continue;
            }
            let host = self.host();
            let run = fail_at(&host.command(self.args), point, here);
            assert!(matches!(run.code, Some(0 | 1)), "{}: {run:?}", case("failed"));
            self.has_happened_or_not(&host, (&run, &ends), &case("failed"));
        }
        let of = all.len();
        tell(&format!("{}: killed at {killed} of {of} points, failed at {}", self.args[0], failing.len()));
        assert!(killed * 10 >= tried * 9, "strace does not reach the points");
    }

    fn has_happened_or_not(
        &self,
        host: &Host,
        (run, (before, after)): (&Run, &(Listed, Listed)),
        case: &str,
    ) {
        let now = self.images.right.check(&host.data_root().join("image"), case);
        assert!(now == *before || now == *after, "{case}: {now:?}");
        assert!(run.code != Some(0) || now == *after, "{case}: it was said to be done");
        self.goes_on(host, (&now, after), case);
    }

    /// The same command again, and then a load: nobody has mended anything between.
    fn goes_on(&self, host: &Host, (now, after): (&Listed, &Listed), case: &str) {
        let store = host.data_root().join("image");
        let list = host.isopod(&["images", "-q"]).expect(0);
        assert_eq!(list.text().lines().count(), now.len(), "{case}: {}", list.text());
        let again = host.isopod(self.args);
        let expected = if now == after { self.again } else { 0 };
        assert_eq!(again.code, Some(expected), "{case}, then again: {}", again.stderr);
        assert_eq!(&self.images.right.check(&store, case), after, "{case}, then again");
        load(host, &self.images.next);
        let names = self.images.right.check(&store, case);
        assert_eq!(names.len(), after.len() + 1, "{case}, then a load");
        expect_nothing_else(&store, case);
        host.assert_clean();
    }
}

/// A host with the first image, and perhaps the second.
fn host_with(images: &Images, other: bool) -> Host {
    let host = Host::without_templates();
    load(&host, &images.kept);
    if other {
        load(&host, &images.other);
    }
    host
}

#[test]
fn a_load_killed_anywhere_has_happened_or_has_not() {
    let scratch = Host::without_templates();
    let images = Images::new(&scratch);
    let before = host_with(&images, false);
    let args = ["load", "-q", "-i", images.other.to_str().unwrap()];
    Trial { images: &images, before: &before, args: &args, again: 0 }.everywhere();
}

#[test]
fn a_first_load_killed_anywhere_leaves_a_store_or_none() {
    let scratch = Host::without_templates();
    let images = Images::new(&scratch);
    let archive = scratch.scratch("other.tar");
    let from = format!("oci:{}:other:1", images.other.display());
    let to = format!("oci-archive:{}:other:1", archive.display());
    tool(Command::new("skopeo").args(["copy", "--quiet", "--insecure-policy", &from, &to]));
    let load_archive = ["load", "-q", "-i", archive.to_str().unwrap()];
    let first = Host::without_templates();
    let all = points(&first.command(&load_archive), first.root(), here);
    let chosen = some_of(all.clone(), times(USUAL.0));
    tell(&format!("a first load: killed at {} of {} points", chosen.len(), all.len()));
    for point in chosen {
        let host = Host::without_templates();
        let case = format!("a first load killed at {point}");
        let _ = kill_at(&host.command(&load_archive), &point, here);
        let list = host.isopod(&["images", "-q"]).expect(0);
        let store = host.data_root().join("image");
        assert_eq!(list.text().lines().count(), listed(&store, &case).len(), "{case}");
        load(&host, &images.next);
        load(&host, &images.other);
        assert!(images.right.check(&store, &case).len() >= 2, "{case}");
        expect_nothing_else(&store, &case);
    }
}

#[test]
fn a_pull_killed_anywhere_has_happened_or_has_not() {
    let scratch = Host::without_templates();
    let (mut images, registry) = (Images::new(&scratch), Registry::open());
    registry.push(&format!("oci:{}:other:1", images.other.display()), "other:1");
    let name = format!("{}/other:1", registry.host());
    let before = host_with(&images, false);
    let pulled = Host::without_templates();
    pulled.isopod(&["pull", "-q", &name]).expect(0);
    images.right.learn(&pulled.data_root().join("image"));
    Trial { images: &images, before: &before, args: &["pull", "-q", &name], again: 0 }.everywhere();
}

#[test]
fn a_tag_killed_anywhere_was_given_or_was_not() {
    let scratch = Host::without_templates();
    let images = Images::new(&scratch);
    let before = host_with(&images, true);
    Trial { images: &images, before: &before, args: &["tag", "kept:1", "other:1"], again: 0 }.everywhere();
}

#[test]
fn a_removal_killed_anywhere_is_ended_by_the_next_command() {
    let scratch = Host::without_templates();
    let images = Images::new(&scratch);
    let before = host_with(&images, true);
    Trial { images: &images, before: &before, args: &["rmi", "other:1"], again: 1 }.everywhere();
}

#[test]
fn a_pruning_killed_anywhere_is_ended_by_the_next_command() {
    let scratch = Host::without_templates();
    let images = Images::new(&scratch);
    let before = host_with(&images, true);
    Trial { images: &images, before: &before, args: &["image", "prune", "-a", "-f"], again: 0 }.everywhere();
}

#[test]
fn a_push_killed_anywhere_leaves_the_store_alone_and_can_be_given_again() {
    let scratch = Host::without_templates();
    let images = Images::new(&scratch);
    let host = host_with(&images, false);
    let store = host.data_root().join("image");
    // What a registry has, under whatever name, it is not sent again: each push is to a registry of its own.
    let fresh = || {
        let registry = Registry::open();
        let name = format!("{}/pushed:1", registry.host());
        host.isopod(&["tag", "kept:1", &name]).expect(0);
        (registry, name)
    };
    let (_first, name) = fresh();
    let all = points(&host.command(&["push", "-q", &name]), host.root(), here);
    let chosen = some_of(all.clone(), times(USUAL.0));
    let mut reached = 0;
    for point in &chosen {
        let (case, (registry, name)) = (format!("push killed at {point}"), fresh());
        let before = images.right.check(&store, &case);
        let run = kill_at(&host.command(&["push", "-q", &name]), point, here);
        reached += usize::from(run.code != Some(0));
        assert_eq!(images.right.check(&store, &case), before, "{case}");
        expect_nothing_else(&store, &case);
        host.isopod(&["push", "-q", &name]).expect(0);
        assert_eq!(registry.digest("pushed:1"), before["docker.io/library/kept:1"], "{case}");
    }
    tell(&format!("push: killed at {reached} of {} points", all.len()));
    assert!(reached * 10 >= chosen.len() * 9, "strace does not reach the points");
}
