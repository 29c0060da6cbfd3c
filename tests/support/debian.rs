// SPDX-License-Identifier: Apache-2.0
//! A real distribution's image: Debian minbase, Python and Redis by mmdebstrap, packed by umoci in three layers.
//!
//! It takes minutes to make, so it is made once and kept under `~/.cache/isopod/test-images`, by the hash of how it is
//! made. It comes from wherever this machine's own apt gets its packages. Making it takes root.

use super::layout::{digest, tagged, tool};
use rustix::fs::{FlockOperation, XattrFlags, flock, lsetxattr};
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What the image is called in its layout.
pub(crate) const NAME: &str = "debian";
/// What makes a difference to the image is in this file.
const RECIPE: &str = include_str!("debian.rs");
/// `security.capability`: cap_net_raw, permitted and effective, in its second version.
pub(crate) const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The layout's folder; makes it if it is not there yet.
pub(crate) fn layout() -> PathBuf {
    let home = env::var_os("HOME").expect("a home for the cache");
    let cache = Path::new(&home).join(".cache/isopod/test-images");
    fs::create_dir_all(&cache).expect("the cache is writable");
    let made = cache.join(&digest(RECIPE.as_bytes())[7..23]);
    let lock = File::create(cache.join("lock")).expect("the cache is writable");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    if !made.exists() {
        let work = TempDir::with_prefix_in("making-", &cache).expect("the cache is writable");
        let layout = make(work.path());
        fs::rename(layout, &made).expect("one file system");
    }
    made
}

/// Base system, Python and Redis on top, then what an image's author adds: a user, files, a removal.
fn make(work: &Path) -> PathBuf {
    let (layout, bundle) = (work.join("layout"), work.join("bundle"));
    let image = tagged(&layout, NAME);
    let umoci = |args: &[&str]| drop(tool(Command::new("umoci").args(args)));
    let bundle_path = bundle.to_str().expect("text");
    umoci(&["init", "--layout", layout.to_str().expect("text")]);
    umoci(&["new", "--image", &image]);
    umoci(&["unpack", "--image", &image, bundle_path]);
    let root = bundle.join("rootfs");
    for include in [None, Some("--include=python3-minimal,redis-server")] {
        fs::remove_dir_all(&root).expect("our own");
        bootstrap(&root, include);
        umoci(&["repack", "--refresh-bundle", "--image", &image, bundle_path]);
    }
    customise(&root);
    umoci(&["repack", "--image", &image, bundle_path]);
    umoci(&[
        "config",
        "--image",
        &image,
        "--config.user",
        "teller",
        "--config.workingdir",
        "/srv/tales",
        "--config.env",
        "PATH=/usr/bin:/bin",
        "--config.env",
        "TALE=once upon a time",
    ]);
    umoci(&["gc", "--layout", layout.to_str().expect("text")]);
    layout
}

fn bootstrap(root: &Path, include: Option<&str>) {
    tool(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase"])
            .args(
                ["doc", "man", "locale", "info"]
                    .map(|what| format!("--dpkgopt=path-exclude=/usr/share/{what}/*")),
            )
            .args(include)
            .arg("bookworm")
            .arg(root)
            // Files that packages' scripts make get one time in both layers.
            .env("SOURCE_DATE_EPOCH", "1700000000"),
    );
    // A device of the host's would be all that tells the layers' /dev apart; guests have their own.
    for entry in fs::read_dir(root.join("dev")).expect("there is one").flatten() {
        let _ = fs::remove_file(entry.path());
    }
}

fn customise(root: &Path) {
    let append = |file: &str, line: &str| {
        let text = fs::read_to_string(root.join(file)).expect("Debian has one");
        fs::write(root.join(file), text + line).expect("writable");
    };
    append("etc/passwd", "teller:x:4711:4712::/srv/tales:/bin/sh\n");
    append("etc/group", "teller:x:4712:\nlisteners:x:4713:teller\n");
    fs::create_dir_all(root.join("srv/tales")).expect("writable");
    chown(root.join("srv/tales"), Some(4711), Some(4712)).expect("root's right");
    fs::write(root.join("srv/tales/one"), "once\n").expect("writable");
    fs::hard_link(root.join("srv/tales/one"), root.join("srv/tales/same")).expect("writable");
    fs::copy(root.join("bin/true"), root.join("srv/raw")).expect("writable");
    fs::set_permissions(root.join("srv/raw"), fs::Permissions::from_mode(0o755)).expect("ours");
    lsetxattr(root.join("srv/raw"), c"security.capability", &NET_RAW, XattrFlags::empty())
        .expect("root's right");
    fs::remove_file(root.join("etc/debian_version")).expect("Debian has one");
}
