// SPDX-License-Identifier: Apache-2.0
//! What the guest kernel is made of: the fragments, patches and manifest beside this file, their common id, and
//! where a kernel built from them is kept.
//!
//! `cargo xtask kernel` builds and the engine boots: both find the kernel by the id of the inputs they were
//! compiled with, so that neither can meet a kernel of other inputs than its own. The inputs are embedded; they
//! are 30 KB, and a binary that has left its tree still knows which kernel it needs.
#![forbid(unsafe_code)]

use sha2::{Digest, Sha256};
use std::env;
use std::path::PathBuf;

/// A file of this folder, as it was when this crate was compiled.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// Its path beneath this folder.
    pub name: &'static str,
    pub contents: &'static str,
}

macro_rules! inputs {
    ($($name:literal),* $(,)?) => {
        &[$(Input { name: $name, contents: include_str!($name) }),*]
    };
}

/// Every file that decides what the kernel is; `kernel.toml` says what each is for.
pub const INPUTS: &[Input] = inputs![
    "kernel.toml",
    "base.config",
    "x86_64.config",
    "debug.config",
    "patches/0001-x86-a-system-call-that-arrives-as-a-page-fault.patch",
    "patches/0002-pvpanic-at-its-port-without-acpi.patch",
    "patches/0003-x86-a-machine-without-pc-parts.patch",
    "patches/0004-sysfs-leave-out-the-kernels-insides.patch",
    "patches/0005-x86-large-pages-to-the-end-of-boot.patch",
    "patches/0006-boot-do-less.patch",
    "patches/0007-mm-struct-pages-are-made-free.patch",
    "patches/0008-printk-quiet-is-not-kept.patch",
    "patches/0009-mm-memory-that-is-asked-for.patch",
    "patches/0010-random-an-idle-machine-sleeps-on.patch",
    "patches/0011-ipv4-addresses-age-when-somebody-is-awake.patch",
];

/// The file of this name among `INPUTS`.
pub fn input(name: &str) -> Option<Input> {
    INPUTS.iter().find(|input| input.name == name).copied()
}

/// Names the kernel: the first 16 hex digits of the SHA-256 over all inputs.
pub fn id() -> String {
    let mut hash = Sha256::new();
    for Input { name, contents } in INPUTS {
        hash.update(format!("{name} {}\n", contents.len()));
        hash.update(contents);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Where kernels are kept: `isopod/kernel` in the user's cache; `None` without a home.
pub fn cache_dir() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("isopod/kernel"))
}

/// The kernel built from these inputs, if it has been built.
pub fn cached_path() -> Option<PathBuf> {
    let path = cache_dir()?.join(id()).join("vmlinux");
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::{INPUTS, id};
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_fragment_and_patch_of_this_folder_is_an_input() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = BTreeSet::from(["kernel.toml".to_owned()]);
        for (folder, prefix, suffix) in [(".", "", ".config"), ("patches", "patches/", ".patch")] {
            for entry in fs::read_dir(here.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name.ends_with(suffix) {
                    found.insert(format!("{prefix}{name}"));
                }
            }
        }
        let named: BTreeSet<String> = INPUTS.iter().map(|input| input.name.to_owned()).collect();
        assert_eq!(named, found);
    }

    #[test]
    fn every_line_of_a_fragment_has_its_reason_above_it() {
        for input in INPUTS.iter().filter(|input| input.name.ends_with(".config")) {
            let mut above = "";
            for line in input.contents.lines() {
                let reason = above.starts_with("# ") && !above.starts_with("# ---");
                assert!(!line.starts_with("CONFIG_") || reason, "{}: {line}", input.name);
                above = line;
            }
        }
    }

    #[test]
    fn the_id_is_sixteen_hex_digits() {
        let id = id();
        assert_eq!(id.len(), 16);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
