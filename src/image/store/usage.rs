// SPDX-License-Identifier: Apache-2.0
//! What the store takes of the disk: by image, and by nothing at all.
//!
//! Images share files, so that the sum of what they take is more than what is taken, and removing one frees only what is its
//! alone. What no image leads to is a load that was killed; the next load, or a sweep, removes it.

use super::{Place, Store, files_of, reference_of};
use crate::digest::Digest;
use crate::error::{During, Result};
use crate::reference::Reference;
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What all of it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub images: Vec<ImageUsage>,
    /// Of the files of all images, each counted once.
    pub bytes: u64,
    /// What removing those images would free that nobody uses.
    pub reclaimable: u64,
    pub stray: Stray,
}

/// What one image takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    pub digest: Digest,
    pub references: Vec<Reference>,
    /// As the image says, RFC 3339.
    pub created: Option<String>,
    /// Of all its files.
    pub bytes: u64,
    /// Of those that are other images' as well.
    pub shared: u64,
}

/// What one file takes, of how many images it is, and whether one of them is used.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    bytes: u64,
    owners: usize,
    is_used: bool,
}

/// What leads nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stray {
    pub count: usize,
    pub bytes: u64,
}

impl Store {
    /// Looks at every file; `used` tells which images somebody needs.
    pub fn usage(&self, used: &dyn Fn(&Digest) -> bool) -> Result<Usage> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let mut images = self.images()?;
        let mut files: BTreeMap<Place, Taken> = BTreeMap::new();
        let mut blocks = Blocks::default();
        for (digest, (_, places)) in &images {
            for place in places {
                let mut count =
                    || Taken { bytes: blocks.count(&self.path(&place.path())), ..Taken::default() };
                let taken = files.entry(*place).or_insert_with(&mut count);
                taken.owners += 1;
                taken.is_used |= used(digest);
            }
        }
        for (image, places) in images.values_mut() {
            for taken in places.iter().filter_map(|place| files.get(place)) {
                image.bytes += taken.bytes;
                image.shared += if taken.owners > 1 { taken.bytes } else { 0 };
            }
        }
        let needed = files.keys().map(|place| place.path()).collect();
        Ok(Usage {
            images: images.into_values().map(|(image, _)| image).collect(),
            bytes: files.values().map(|taken| taken.bytes).sum(),
            reclaimable: files.values().filter(|taken| !taken.is_used).map(|taken| taken.bytes).sum(),
            stray: self.strays(&needed, blocks)?,
        })
    }

    /// Each image with its files, before these were looked at. The caller holds the lock.
    fn images(&self) -> Result<BTreeMap<Digest, (ImageUsage, BTreeSet<Place>)>> {
        let mut images: BTreeMap<Digest, (ImageUsage, BTreeSet<Place>)> = BTreeMap::new();
        for descriptor in self.listing()?.manifests {
            let reference = reference_of(&descriptor);
            if let Some((image, _)) = images.get_mut(&descriptor.digest) {
                image.references.extend(reference);
                continue;
            }
            let digest = descriptor.digest;
            let (manifest, configuration) = self.documents(&digest)?;
            let files = files_of(digest, &manifest).into_iter().collect();
            let (references, created) = (reference.into_iter().collect(), configuration.created);
            images.insert(digest, (ImageUsage { digest, references, created, bytes: 0, shared: 0 }, files));
        }
        Ok(images)
    }

    /// Folders of dead loads, and files that are none of those needed; `counted` are those. What a load under way holds is
    /// not stray yet. The caller holds the lock.
    fn strays(&self, needed: &BTreeSet<String>, mut counted: Blocks) -> Result<Stray> {
        let mut found = Vec::new();
        let is_dead = |path: &Path| match File::open(path.join("lock")) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockShared).is_ok(),
            Err(_) => true,
        };
        let mut held = Blocks::default();
        for (path, _) in self.entries("tmp")? {
            if is_dead(&path) {
                found.push(path);
            } else {
                held.count(&path);
            }
        }
        for folder in Place::FOLDERS {
            let entries = self.entries(folder)?.into_iter();
            let strays = entries.filter(|(path, name)| !needed.contains(name) && !held.has(path));
            found.extend(strays.map(|(path, _)| path));
        }
        let bytes = found.iter().map(|path| counted.count(path)).sum();
        Ok(Stray { count: found.len(), bytes })
    }

    /// What is in a folder of the store, with its name from the store's root.
    pub(super) fn entries(&self, folder: &str) -> Result<Vec<(PathBuf, String)>> {
        let path = self.path(folder);
        let what = format!("cannot read {}", path.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&path).during(&what)? {
            let entry = entry.during(&what)?;
            found.push((entry.path(), format!("{folder}/{}", entry.file_name().to_string_lossy())));
        }
        Ok(found)
    }

    /// What the files of images take, stray ones too. The caller holds the lock.
    pub(super) fn bytes(&self) -> u64 {
        Place::FOLDERS.iter().map(|folder| on_disk(&self.path(folder))).sum()
    }
}

/// What a file, or a folder with all that is in it, takes of the disk; nothing if it is not there.
pub fn on_disk(path: &Path) -> u64 {
    Blocks::default().count(path)
}

/// Files that were counted: one of several names is counted once.
#[derive(Debug, Default)]
struct Blocks(BTreeSet<(u64, u64)>);

impl Blocks {
    fn count(&mut self, path: &Path) -> u64 {
        let mut bytes = 0;
        let mut paths = vec![path.to_owned()];
        while let Some(path) = paths.pop() {
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            if self.0.insert((found.dev(), found.ino())) {
                bytes += found.blocks() * 512;
            }
            if found.is_dir() {
                paths.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
        }
        bytes
    }

    fn has(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|found| self.0.contains(&(found.dev(), found.ino())))
    }
}
