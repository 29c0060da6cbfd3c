// SPDX-License-Identifier: Apache-2.0
//! Layers on top of each other, as one image: each layer's table applied to what those below it made.
//!
//! Nothing is copied until the result is written: merged names refer to the layers' tables, and a file keeps the node
//! it has there, so that a hard link in an upper layer to a file of a lower one is one more name of that node.
//! A layer is applied in this order, which makes the order of its archive's entries irrelevant:
//!
//! 1. its links into lower layers are looked up, before anything below them goes away;
//! 2. whiteouts and opaque folders take away what lower layers have;
//! 3. its own entries are put in place. A folder over a folder only changes its attributes (and not even those, if no
//!    entry described it); anything else takes the name's place;
//! 4. links not found in step 1 are looked up again, now that the layer itself is there.
//!
//! A folder no entry described, where a lower layer has a symbolic link, means the folder the link leads to: resolved
//! within the image's root, which `..` cannot leave, as umoci does. A missing folder on that way is made.

use crate::build::BuildError;
use crate::emit::{Source, emit};
use crate::format::{Kind, LAYERS_MAX, Record, at, halves, marks};
use crate::keep::Arena;
use crate::links::{Link, Links, NOTHING, Names};
use crate::read::{Index, Ino, View};
use std::fmt::{Display, Formatter, Result as FmtResult};
use std::io::Write;
use thiserror::Error;

/// Symbolic links followed on one way, as in Linux (`MAXSYMLINKS`).
const LINKS_MAX: u32 = 40;
/// Steps of all ways together: a bound no image needs and a hostile one cannot stretch.
const STEPS_MAX: u64 = 50_000_000;

/// Which layer (0 is the lowest) could not be merged, at which path.
#[derive(Debug, Error)]
#[error("cannot apply {}", Where(*layer, path))]
pub struct MergeError {
    pub layer: Option<usize>,
    pub path: Vec<u8>,
    #[source]
    pub cause: BuildError,
}

struct Where<'a>(Option<usize>, &'a [u8]);

impl Display for Where<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self.0 {
            Some(layer) => write!(f, "layer {} at `/{}`", layer + 1, self.1.escape_ascii()),
            None => f.write_str("the layers to each other"),
        }
    }
}

/// Memory that merging takes besides the tables themselves, about: what `Merged` and the writer keep of each name and inode.
pub fn memory<B: AsRef<[u8]>>(layers: &[Index<B>]) -> u64 {
    let counts = layers.iter().map(Index::counts);
    counts
        .map(|counts| counts.entries.saturating_mul(25).saturating_add(counts.inodes.saturating_mul(20)))
        .sum()
}

/// Merges layers' tables, the lowest first, and writes the image's table. Layer n's contents are in data file n.
pub fn merge<B: AsRef<[u8]>>(layers: &[Index<B>], out: &mut impl Write) -> Result<(), MergeError> {
    let whole = |cause| MergeError { layer: None, path: Vec::new(), cause };
    if layers.len() > LAYERS_MAX {
        return Err(whole(BuildError::TooManyLayers { layers: layers.len() }));
    }
    let mut merged = Merged::new(layers.iter().map(Index::view).collect()).map_err(whole)?;
    for layer in 0..layers.len() {
        merged.apply(layer).map_err(|(path, cause)| MergeError { layer: Some(layer), path, cause })?;
    }
    // Only needed to find a way.
    merged.homes = Vec::new();
    emit(&merged, out).map_err(whole)
}

/// What went wrong, and where.
type At<T> = Result<T, (Vec<u8>, BuildError)>;

/// The state between layers. A node is an inode of a layer's table, numbered through all layers, or a folder made here.
struct Merged<'a> {
    views: Vec<View<'a>>,
    node_bases: Vec<u32>,
    name_bases: Vec<u32>,
    /// Of each node: the node whose attributes it has, or `NOTHING` if nobody described it. Only folders' change.
    looks: Vec<u32>,
    /// Of each folder in use: the link that names it.
    homes: Vec<u32>,
    links: Links,
    /// Names of folders made here, after all layers' names.
    names: NamesOf<'a>,
    root: u32,
    steps: u64,
}

struct NamesOf<'a> {
    views: Vec<View<'a>>,
    bases: Vec<u32>,
    end: u32,
    made: Arena,
}

impl Names for NamesOf<'_> {
    fn name(&self, reference: u32) -> &[u8] {
        if let Some(made) = reference.checked_sub(self.end) {
            return self.made.name(made);
        }
        let layer = self.bases.partition_point(|base| *base <= reference) - 1;
        self.views[layer].dirent(reference - self.bases[layer]).map_or(&[], |entry| entry.name)
    }
}

/// What is at a name.
enum At1 {
    Nothing,
    Folder(u32),
    Symlink(u32),
    Other(u32),
}

/// Where each number of each layer begins when all are counted through, and their sum.
fn bases(counts: impl Iterator<Item = u32>) -> Result<(Vec<u32>, u32), BuildError> {
    let mut bases = Vec::new();
    let mut end = 0u32;
    for count in counts {
        bases.push(end);
        end = end.checked_add(count).filter(|end| *end < NOTHING / 2).ok_or(BuildError::TooManyEntries)?;
    }
    Ok((bases, end))
}

impl<'a> Merged<'a> {
    fn new(views: Vec<View<'a>>) -> Result<Self, BuildError> {
        let (node_bases, nodes) = bases(views.iter().map(View::inodes))?;
        let (name_bases, names) = bases(views.iter().map(View::dirents))?;
        let mut merged = Self {
            names: NamesOf {
                views: views.clone(),
                bases: name_bases.clone(),
                end: names,
                made: Arena::default(),
            },
            views,
            node_bases,
            name_bases,
            looks: (0..nodes).collect(),
            homes: vec![NOTHING; at(nodes)],
            links: Links::with_capacity(at(names)),
            root: 0,
            steps: 0,
        };
        merged.root = merged.make(NOTHING)?;
        Ok(merged)
    }

    fn apply(&mut self, layer: usize) -> At<()> {
        let found = self.look_up_links(layer)?;
        self.take_away(layer)?;
        let late = self.put_in_place(layer, &found)?;
        for (link, ino) in late {
            let node = self.link_target(layer, ino).map_err(|e| (self.path(link), e))?;
            let Some(node) = node else {
                let target = self.views[layer].blob_of(ino).unwrap_or_default().to_vec();
                return Err((self.path(link), BuildError::LinkToNothing(target)));
            };
            self.links.point(link, node);
        }
        Ok(())
    }

    /// Step 1: the nodes of links into lower layers by inode, as far as they are there.
    fn look_up_links(&mut self, layer: usize) -> At<Vec<u32>> {
        let mut found = Vec::new();
        for ino in 1..=self.views[layer].inodes() {
            let marked =
                self.views[layer].record(Ino(ino)).is_some_and(|(record, ..)| record.has(marks::LINK));
            if !marked {
                continue;
            }
            if let Some(node) = self.link_target(layer, Ino(ino)).map_err(|e| (Vec::new(), e))? {
                found.resize(at(self.views[layer].inodes()) + 1, NOTHING);
                found[at(ino)] = node;
            }
        }
        Ok(found)
    }

    /// Step 2.
    fn take_away(&mut self, layer: usize) -> At<()> {
        let view = self.views[layer];
        let root = view.record(Ino::ROOT).ok_or((Vec::new(), BuildError::Corrupt("no root")))?.0;
        if root.has(marks::OPAQUE) {
            self.clear(self.root).map_err(|e| (Vec::new(), e))?;
        }
        let mut todo = vec![(Ino::ROOT, self.root)];
        while let Some((dir, folder)) = todo.pop() {
            for entry in view.entries(dir) {
                let Some((record, ..)) = view.record(entry.ino) else {
                    continue;
                };
                if record.has(marks::WHITEOUT) {
                    if let Some(link) = self.links.find(&self.names, folder, entry.name) {
                        self.links.point(link, NOTHING);
                    }
                } else if record.is_folder() {
                    let below = self.below(folder, entry.name, &record);
                    let Some(mut below) = below.map_err(|e| (self.path_of(folder, entry.name), e))? else {
                        continue;
                    };
                    if record.has(marks::OPAQUE) {
                        below = self.clear(below).map_err(|e| (self.path_of(folder, entry.name), e))?;
                    }
                    todo.push((entry.ino, below));
                }
            }
        }
        Ok(())
    }

    /// The folder that lower layers have where a layer has this one, if they have.
    fn below(&mut self, folder: u32, name: &[u8], record: &Record) -> Result<Option<u32>, BuildError> {
        match self.find(folder, name) {
            At1::Folder(below) => Ok(Some(below)),
            At1::Symlink(_) if record.has(marks::IMPLICIT) => self.walk(folder, name, false),
            _ => Ok(None),
        }
    }

    /// Step 3; gives the links still to be looked up.
    fn put_in_place(&mut self, layer: usize, found: &[u32]) -> At<Vec<(u32, Ino)>> {
        let view = self.views[layer];
        let mut late = Vec::new();
        if view.record(Ino::ROOT).is_some_and(|(record, ..)| !record.has(marks::IMPLICIT)) {
            self.looks[at(self.root)] = self.node_bases[layer];
        }
        let mut todo = vec![(Ino::ROOT, self.root)];
        while let Some((dir, folder)) = todo.pop() {
            let (first, count) = view.record(dir).map_or((0, 0), |(record, ..)| halves(record.payload));
            for n in first..first.saturating_add(count).min(view.dirents()) {
                let corrupt = || (Vec::new(), BuildError::Corrupt("an entry"));
                let entry = view.dirent(n).ok_or_else(corrupt)?;
                let (record, ..) = view.record(entry.ino).ok_or_else(corrupt)?;
                let node = self.node_bases[layer] + entry.ino.0 - 1;
                let name = self.name_bases[layer] + n;
                if record.is_folder() {
                    let placed = self.put_folder(folder, (name, entry.name), node, &record);
                    todo.push((entry.ino, placed.map_err(|e| (self.path_of(folder, entry.name), e))?));
                } else if !record.has(marks::WHITEOUT) {
                    let target = if record.has(marks::LINK) {
                        found.get(at(entry.ino.0)).copied().filter(|node| *node != NOTHING)
                    } else {
                        Some(node)
                    };
                    let link = self.set(folder, (name, entry.name), target.unwrap_or(NOTHING));
                    let link = link.map_err(|e| (self.path_of(folder, entry.name), e))?;
                    if target.is_none() {
                        late.push((link, entry.ino));
                    }
                }
            }
        }
        Ok(late)
    }

    fn put_folder(
        &mut self,
        folder: u32,
        (reference, name): (u32, &[u8]),
        node: u32,
        record: &Record,
    ) -> Result<u32, BuildError> {
        let implicit = record.has(marks::IMPLICIT);
        match self.find(folder, name) {
            At1::Folder(there) => {
                if !implicit {
                    self.looks[at(there)] = node;
                }
                Ok(there)
            }
            At1::Symlink(_) if implicit => self.walk(folder, name, true)?.ok_or(BuildError::NotAFolder),
            _ => {
                let link = self.set(folder, (reference, name), node)?;
                self.homes[at(node)] = link;
                Ok(node)
            }
        }
    }

    /// The node a layer's link means, as things are now.
    fn link_target(&mut self, layer: usize, ino: Ino) -> Result<Option<u32>, BuildError> {
        let Some(path) = self.views[layer].blob_of(ino) else {
            return Err(BuildError::Corrupt("a link"));
        };
        let cut = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let (way, name) = path.split_at(cut);
        let Some(folder) = self.walk(self.root, way, false)? else {
            return Ok(None);
        };
        match self.find(folder, name.strip_prefix(b"/").unwrap_or(name)) {
            At1::Nothing => Ok(None),
            At1::Folder(_) => Err(BuildError::LinkToFolder),
            At1::Symlink(node) | At1::Other(node) => Ok(Some(node)),
        }
    }

    /// Follows a path from a folder to a folder, through links, within the root. With `make`, folders that are missing
    /// are made, and what is in their place gives way.
    fn walk(&mut self, from: u32, path: &[u8], make: bool) -> Result<Option<u32>, BuildError> {
        let mut here = if path.first() == Some(&b'/') { self.root } else { from };
        let mut todo = path.to_vec();
        let mut start = 0;
        let mut followed = 0;
        while start < todo.len() {
            let rest = &todo[start..];
            let name = &rest[..rest.iter().position(|b| *b == b'/').unwrap_or(rest.len())];
            let next = start + name.len() + 1;
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(BuildError::LinkLoop(path.to_vec()));
            }
            match name {
                b"" | b"." => {}
                b".." => here = self.parent(here),
                name => match self.find(here, name) {
                    At1::Folder(folder) => here = folder,
                    At1::Symlink(link) => {
                        followed += 1;
                        if followed > LINKS_MAX {
                            return Err(BuildError::LinkLoop(path.to_vec()));
                        }
                        let mut way = self.blob(link)?.to_vec();
                        if way.first() == Some(&b'/') {
                            here = self.root;
                        }
                        way.push(b'/');
                        way.extend_from_slice(todo.get(next..).unwrap_or_default());
                        todo = way;
                        start = 0;
                        continue;
                    }
                    _ if !make => return Ok(None),
                    _ => here = self.make_in(here, name)?,
                },
            }
            start = next;
        }
        Ok(Some(here))
    }

    fn parent(&self, folder: u32) -> u32 {
        match self.homes.get(at(folder)) {
            Some(link) if *link != NOTHING => self.links.get(*link).parent,
            _ => self.root,
        }
    }

    fn find(&self, folder: u32, name: &[u8]) -> At1 {
        let Some(link) = self.links.find(&self.names, folder, name) else {
            return At1::Nothing;
        };
        let node = self.links.get(link).node;
        match self.kind(node) {
            None => At1::Nothing,
            Some(Kind::Folder) => At1::Folder(node),
            Some(Kind::Symlink) => At1::Symlink(node),
            Some(_) => At1::Other(node),
        }
    }

    /// Points a name at a node.
    fn set(&mut self, folder: u32, (reference, name): (u32, &[u8]), node: u32) -> Result<u32, BuildError> {
        if let Some(link) = self.links.find(&self.names, folder, name) {
            self.links.point(link, node);
            return Ok(link);
        }
        let link = Link { parent: folder, name: reference, node };
        self.links.add(&self.names, link).ok_or(BuildError::TooManyEntries)
    }

    /// A new folder that looks like a node.
    fn make(&mut self, looks: u32) -> Result<u32, BuildError> {
        let node = u32::try_from(self.looks.len()).ok().filter(|n| *n < NOTHING / 2);
        self.looks.push(looks);
        self.homes.push(NOTHING);
        node.ok_or(BuildError::TooManyEntries)
    }

    fn make_in(&mut self, folder: u32, name: &[u8]) -> Result<u32, BuildError> {
        let reference = self.names.made.add(name).and_then(|made| made.checked_add(self.names.end));
        let node = self.make(NOTHING)?;
        let link = self.set(folder, (reference.ok_or(BuildError::TooManyEntries)?, name), node)?;
        self.homes[at(node)] = link;
        Ok(node)
    }

    /// Puts an empty folder that looks the same in a folder's place.
    fn clear(&mut self, folder: u32) -> Result<u32, BuildError> {
        let empty = self.make(self.looks[at(folder)])?;
        let home = self.homes[at(folder)];
        self.homes[at(empty)] = home;
        if folder == self.root {
            self.root = empty;
        } else {
            self.links.point(home, empty);
        }
        Ok(empty)
    }

    fn kind(&self, node: u32) -> Option<Kind> {
        let (layer, ino) = self.locate(*self.looks.get(at(node))?).unwrap_or((0, Ino(0)));
        match self.views.get(layer)?.record(ino) {
            Some((record, ..)) => record.kind(),
            None => Some(Kind::Folder),
        }
    }

    /// The layer and inode of a layer's node.
    fn locate(&self, node: u32) -> Option<(usize, Ino)> {
        let layer = self.node_bases.partition_point(|base| *base <= node).checked_sub(1)?;
        let ino = (node - self.node_bases[layer]).checked_add(1)?;
        (ino <= self.views[layer].inodes()).then_some((layer, Ino(ino)))
    }

    /// The path of a link, for messages.
    fn path(&self, link: u32) -> Vec<u8> {
        let link = self.links.get(link);
        self.path_of(link.parent, self.names.name(link.name))
    }

    fn path_of(&self, folder: u32, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut folder = folder;
        while folder != self.root && names.len() < 4096 {
            let Some(link) = self.homes.get(at(folder)).filter(|link| **link != NOTHING) else {
                break;
            };
            let link = self.links.get(*link);
            names.push(self.names.name(link.name));
            folder = link.parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}

mod source;
#[cfg(test)]
mod tests;
