// SPDX-License-Identifier: Apache-2.0
//! The walls between the rooms: a crate depends only on crates above it in the root `Cargo.toml` (the list is the
//! diagram, bottom to top), only `src/vmm` knows of KVM, and unsafe code has an address.

use super::code::{code_lines, in_word};
use super::sources::Source;
use super::{at, command};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Crates that must forbid unsafe code at their root.
const SAFE: &[&str] = &[
    "kernel-config",
    "src/protocol",
    "src/index",
    "src/fs",
    "src/jail",
    "src/devices",
    "src/image",
    "src/engine",
    "xtask/src",
];
/// Where unsafe code may be, and in how many files.
const UNSAFE: &[(&str, usize)] = &[("src/sys", usize::MAX), ("src/vmm", 3), ("guest-agent", 1)];

pub(super) fn check(root: &Path, sources: &[Source]) -> Result<Vec<String>> {
    let mut found = arrows(root)?;
    found.extend(kvm(sources));
    found.extend(forbidden(sources));
    found.extend(unsafe_files(sources));
    Ok(found)
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
}

#[derive(Debug, Deserialize)]
struct RootManifest {
    workspace: Workspace,
}

#[derive(Debug, Deserialize)]
struct Workspace {
    members: Vec<String>,
}

fn arrows(root: &Path) -> Result<Vec<String>> {
    let output =
        command(&["metadata", "--format-version=1", "--no-deps"]).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cannot understand cargo metadata")?;
    let text = fs::read_to_string(root.join("Cargo.toml")).context("cannot read the root Cargo.toml")?;
    let manifest: RootManifest = toml::from_str(&text).context("cannot understand the root Cargo.toml")?;
    Ok(upward(root, &metadata.packages, &manifest.workspace.members))
}

/// Dependencies that point up the list of members. The root package, which the list leaves out, is above all.
fn upward(root: &Path, packages: &[Package], members: &[String]) -> Vec<String> {
    let place = |package: &Package| {
        let folder = package.manifest_path.parent().and_then(|folder| folder.strip_prefix(root).ok());
        folder.and_then(|folder| members.iter().position(|member| Path::new(member) == folder))
    };
    let places: HashMap<&str, usize> = packages
        .iter()
        .map(|package| (package.name.as_str(), place(package).unwrap_or(members.len())))
        .collect();
    let mut found = Vec::new();
    for package in packages {
        let here = places[package.name.as_str()];
        for dependency in &package.dependencies {
            if places.get(dependency.name.as_str()).is_some_and(|there| *there >= here) {
                found.push(format!("{} depends on {}, which is above it", package.name, dependency.name));
            }
            if dependency.name.starts_with("kvm-") && package.name != "isopod-vmm" {
                found.push(format!("{} depends on {}: only src/vmm may", package.name, dependency.name));
            }
        }
    }
    found
}

fn kvm(sources: &[Source]) -> Vec<String> {
    let outside = sources.iter().filter(|source| !source.path.starts_with("src/vmm"));
    let mut found = Vec::new();
    for source in outside {
        for (number, line) in code_lines(&source.text) {
            if words(&line)
                .any(|word| word == concat!("kvm", "_ioctls") || word == concat!("kvm", "_bindings"))
            {
                found.push(format!("{}: only src/vmm may know of KVM", at(source, number)));
            }
        }
    }
    found
}

fn forbidden(sources: &[Source]) -> Vec<String> {
    let says = |text: &str| code_lines(text).any(|(_, line)| line.trim() == "#![forbid(unsafe_code)]");
    let forbids = |folder: &str| {
        let mut roots = ["lib.rs", "main.rs"].iter().map(|name| Path::new(folder).join(name));
        roots.any(|root| sources.iter().any(|source| source.path == root && says(&source.text)))
    };
    let open = SAFE.iter().filter(|folder| !forbids(folder));
    open.map(|folder| format!("{folder}: its root does not `#![forbid(unsafe_code)]`")).collect()
}

fn unsafe_files(sources: &[Source]) -> Vec<String> {
    let mut rooms: HashMap<&str, Vec<String>> = HashMap::new();
    let mut found = Vec::new();
    // A test may take more than one file to set its stage.
    for source in sources.iter().filter(|source| !source.is_test()) {
        let Some((number, _)) =
            code_lines(&source.text).find(|(_, line)| words(line).any(|word| word == concat!("un", "safe")))
        else {
            continue;
        };
        match UNSAFE.iter().find(|(room, _)| source.path.starts_with(room)) {
            Some((room, _)) => rooms.entry(room).or_default().push(source.path.display().to_string()),
            None => found.push(format!("{}: no unsafe code here", at(source, number))),
        }
    }
    for (room, most) in UNSAFE {
        let files = rooms.get(room).map(Vec::as_slice).unwrap_or_default();
        if files.len() > *most {
            found.push(format!(
                "{room}: unsafe code in {} files, {most} are the most: {}",
                files.len(),
                files.join(", ")
            ));
        }
    }
    found
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|letter| !in_word(letter))
}

#[cfg(test)]
mod tests {
    use super::{Dependency, Package, SAFE, forbidden, kvm, unsafe_files, upward};
    use crate::check::sources::Source;
    use std::path::Path;

    fn package(name: &str, folder: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.into(),
            manifest_path: Path::new("/w").join(folder).join("Cargo.toml"),
            dependencies: dependencies.iter().map(|name| Dependency { name: (*name).into() }).collect(),
        }
    }

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn an_arrow_up_the_list_is_found_and_one_down_is_not() {
        let members = ["low".to_owned(), "high".to_owned()];
        let down = [
            package("low", "low", &["serde"]),
            package("high", "high", &["low"]),
            package("top", "", &["high"]),
        ];
        assert!(upward(Path::new("/w"), &down, &members).is_empty());
        let up =
            [package("low", "low", &["high"]), package("high", "high", &["top"]), package("top", "", &[])];
        assert_eq!(upward(Path::new("/w"), &up, &members).len(), 2);
    }

    #[test]
    fn kvm_is_known_in_one_room_only() {
        let uses = concat!("use kvm", "_ioctls::Kvm;");
        assert_eq!(kvm(&[source("src/engine/a.rs", uses), source("src/vmm/a.rs", uses)]).len(), 1);
    }

    #[test]
    fn a_room_that_forbids_unsafe_code_in_a_comment_only_does_not() {
        assert_eq!(forbidden(&[source("src/jail/lib.rs", "// #![forbid(unsafe_code)]")]).len(), SAFE.len());
        assert_eq!(forbidden(&[source("src/jail/lib.rs", "#![forbid(unsafe_code)]")]).len(), SAFE.len() - 1);
    }

    #[test]
    fn unsafe_code_is_found_behind_quotes() {
        for before in ["'\"'", "b'\"'", "\"of two\nlines\""] {
            let text = format!("f({before}); {}", concat!("un", "safe { f() }"));
            assert_eq!(unsafe_files(&[source("src/cli/a.rs", &text)]).len(), 1, "{text}");
        }
    }

    #[test]
    fn unsafe_code_is_found_outside_its_address_and_beyond_its_number() {
        let block = concat!("un", "safe { f() }");
        assert_eq!(unsafe_files(&[source("src/cli/a.rs", block)]).len(), 1);
        assert!(
            unsafe_files(&[source("src/sys/a.rs", block), source("src/cli/a.rs", "// unsafe")]).is_empty()
        );
        let files = ["guest-agent/a.rs", "guest-agent/b.rs"].map(|path| source(path, block));
        assert_eq!(unsafe_files(&files).len(), 1);
    }
}
