// SPDX-License-Identifier: Apache-2.0
//! Writing a table: one walk gives numbers and sizes, then each section is written in one pass.
//!
//! Whatever can describe its nodes (`Source`) can be written: a layer's tree, or layers' tables merged. Besides the
//! source, a walk keeps some 20 bytes for each inode; contents go from the source to the writer directly.

use crate::build::BuildError;
use crate::format::{
    DIRENT_LEN, EXTENT_LEN, FILE_MAX, INODE_LEN, Kind, LAYERS_MAX, PATH_MAX, Record, SECTIONS, Use, at,
    encode_dirent, encode_header, from_halves, layout, place,
};
use crate::links::{Link, Links, Names, Sorted};
use crate::read::Extent;
use std::collections::HashMap;
use std::io::Write;

/// What the writer asks about a tree. Nodes are numbered from 0 to below `nodes()`.
pub(crate) trait Source: Names {
    fn used(&self) -> Use;
    fn layers(&self) -> usize;
    fn root(&self) -> u32;
    fn nodes(&self) -> usize;
    fn links(&self) -> &Links;
    /// The record of a node; its payload counts only for devices and for files in one piece, whose place is final.
    fn record(&self, node: u32) -> Result<Record, BuildError>;
    /// Target of a link or contents of an inline file.
    fn blob(&self, node: u32) -> Result<&[u8], BuildError>;
    /// Pieces of a file in pieces.
    fn extents(&self, node: u32) -> Result<Vec<Extent>, BuildError>;
    fn extent_count(&self, node: u32) -> Result<u32, BuildError>;
    /// The encoded set, and a number equal sets share.
    fn xattrs(&self, node: u32) -> Result<Option<(u64, &[u8])>, BuildError>;
}

pub(crate) fn emit<S: Source>(source: &S, out: &mut impl Write) -> Result<(), BuildError> {
    let sorted = source.links().sorted(source);
    let plan = Plan::make(source, &sorted)?;
    plan.write(source, &sorted, out)
}

/// The numbering of a tree's nodes and the sizes of the sections.
#[derive(Debug, Default)]
struct Plan {
    /// Node of each inode, in order.
    nodes: Vec<u32>,
    /// Inode number of each node, or 0.
    inos: Vec<u32>,
    nlinks: Vec<u32>,
    /// Of folders: the parent's number and the length of the path, in order of inodes.
    folders: Vec<(u32, u16)>,
    /// Where each set lies.
    xattrs: HashMap<u64, u32>,
    /// One node for each set, in order.
    xattr_nodes: Vec<u32>,
    dirents: u64,
    extents: u64,
    names: u64,
    blobs: u64,
    xattr_bytes: u64,
    bytes: u64,
}

impl Plan {
    fn make<S: Source>(source: &S, sorted: &Sorted) -> Result<Self, BuildError> {
        let nodes = source.nodes();
        // Room that is touched only as it fills.
        let (order, nlinks) = (Vec::with_capacity(nodes), Vec::with_capacity(nodes));
        let mut plan = Self { inos: vec![0; nodes], nodes: order, nlinks, ..Self::default() };
        plan.number(source.root())?;
        plan.folders.push((1, 0));
        let mut folders = 0;
        let mut n = 0;
        while let Some(&node) = plan.nodes.get(n) {
            let record = source.record(node)?;
            plan.measure(source, node, &record)?;
            n += 1;
            if !record.is_folder() {
                continue;
            }
            let (_, depth) = plan.folders[folders];
            folders += 1;
            let ino = plan.inos[at(node)];
            for link in sorted.of(source.links(), node) {
                let name = source.name(link.name).len();
                let path = usize::from(depth) + name + 1;
                if path > PATH_MAX {
                    return Err(BuildError::PathTooLong { len: path });
                }
                plan.dirents += 1;
                plan.names += name as u64;
                let seen = plan.inos.get(at(link.node)).copied().ok_or(BuildError::Corrupt("a link"))?;
                let folder = source.record(link.node)?.is_folder();
                match (seen, folder) {
                    (0, _) => {
                        plan.number(link.node)?;
                        if folder {
                            plan.folders.push((ino, u16::try_from(path).unwrap_or(u16::MAX)));
                            plan.nlinks[at(ino) - 1] += 1;
                        }
                    }
                    (_, true) => return Err(BuildError::LinkToFolder),
                    (seen, false) => plan.nlinks[at(seen) - 1] += 1,
                }
            }
            plan.nlinks[n - 1] += 1;
        }
        plan.check_sizes(source)?;
        Ok(plan)
    }

    fn number(&mut self, node: u32) -> Result<(), BuildError> {
        self.nodes.push(node);
        self.nlinks.push(1);
        let ino = u32::try_from(self.nodes.len()).map_err(|_| BuildError::TooManyEntries)?;
        *self.inos.get_mut(at(node)).ok_or(BuildError::Corrupt("a link"))? = ino;
        Ok(())
    }

    fn measure<S: Source>(&mut self, source: &S, node: u32, record: &Record) -> Result<(), BuildError> {
        match record.kind().ok_or(BuildError::Corrupt("a mode"))? {
            Kind::File => {
                if record.size > FILE_MAX {
                    return Err(BuildError::FileTooLarge { size: record.size });
                }
                self.bytes += record.size;
                match record.layout {
                    layout::INLINE => self.blobs += record.size,
                    layout::MANY => self.extents += u64::from(source.extent_count(node)?),
                    _ => {}
                }
            }
            Kind::Symlink => self.blobs += record.size,
            _ => {}
        }
        if let Some((key, set)) = source.xattrs(node)?
            && !self.xattrs.contains_key(&key)
        {
            let offset = u32::try_from(self.xattr_bytes).map_err(|_| BuildError::TooManyEntries)?;
            self.xattrs.insert(key, offset);
            self.xattr_nodes.push(node);
            self.xattr_bytes += set.len() as u64;
        }
        Ok(())
    }

    /// Numbers in records are 32 bits wide.
    fn check_sizes<S: Source>(&self, source: &S) -> Result<(), BuildError> {
        let all = [self.dirents, self.extents, self.names, self.xattr_bytes + 1];
        if source.layers() > LAYERS_MAX {
            return Err(BuildError::TooManyLayers { layers: source.layers() });
        }
        if all.iter().any(|n| u32::try_from(*n).is_err()) {
            return Err(BuildError::TooManyEntries);
        }
        Ok(())
    }

    fn write<S: Source>(&self, source: &S, sorted: &Sorted, out: &mut impl Write) -> Result<(), BuildError> {
        let lens = [
            (self.nodes.len() * INODE_LEN) as u64,
            self.dirents * DIRENT_LEN as u64,
            self.extents * EXTENT_LEN as u64,
            self.names,
            self.blobs,
            self.xattr_bytes,
        ];
        let layers = u16::try_from(source.layers()).unwrap_or(u16::MAX);
        let (header, offsets) = encode_header(source.used(), layers, self.bytes, lens);
        let mut out = Sections { out, at: header.len() as u64, offsets, lens, next: 0 };
        out.out.write_all(&header)?;
        out.section()?;
        self.write_inodes(source, sorted, &mut out)?;
        out.section()?;
        self.write_dirents(source, sorted, &mut out)?;
        out.section()?;
        for &node in self.files(source, layout::MANY) {
            for extent in source.extents(node)? {
                out.put(&extent.file_offset.to_le_bytes())?;
                out.put(&extent.len.to_le_bytes())?;
                out.put(&place(extent.layer, extent.data_offset).to_le_bytes())?;
            }
        }
        out.section()?;
        for link in self.links(source, sorted) {
            out.put(source.name(link.name))?;
        }
        out.section()?;
        for &node in &self.nodes {
            let record = source.record(node)?;
            if record.kind() == Some(Kind::Symlink) || record.layout == layout::INLINE {
                out.put(source.blob(node)?)?;
            }
        }
        out.section()?;
        for &node in &self.xattr_nodes {
            out.put(source.xattrs(node)?.map_or(&[], |(_, set)| set))?;
        }
        out.end()
    }

    fn write_inodes<S: Source, W: Write>(
        &self,
        source: &S,
        sorted: &Sorted,
        out: &mut Sections<'_, W>,
    ) -> Result<(), BuildError> {
        let (mut dirents, mut extents, mut blobs) = (0, 0, 0u64);
        let mut folders = self.folders.iter();
        for (&node, &nlink) in self.nodes.iter().zip(&self.nlinks) {
            let mut record = source.record(node)?;
            match (record.kind(), record.layout) {
                (Some(Kind::Folder), _) => {
                    let count = u32::try_from(sorted.of(source.links(), node).count()).unwrap_or(u32::MAX);
                    record.payload = from_halves(dirents, count);
                    record.size = folders.next().map_or(0, |(parent, _)| u64::from(*parent));
                    dirents += count;
                }
                (Some(Kind::Symlink), _) | (_, layout::INLINE) => {
                    record.payload = blobs;
                    blobs += record.size;
                }
                (_, layout::MANY) => {
                    let count = source.extent_count(node)?;
                    record.payload = from_halves(extents, count);
                    extents += count;
                }
                _ => {}
            }
            let set = source.xattrs(node)?.and_then(|(key, _)| self.xattrs.get(&key)).map_or(0, |n| n + 1);
            out.put(&record.encode(nlink, set))?;
        }
        Ok(())
    }

    fn write_dirents<S: Source, W: Write>(
        &self,
        source: &S,
        sorted: &Sorted,
        out: &mut Sections<'_, W>,
    ) -> Result<(), BuildError> {
        let mut name = 0;
        for link in self.links(source, sorted) {
            let len =
                u8::try_from(source.name(link.name).len()).map_err(|_| BuildError::Corrupt("a name"))?;
            let kind = source.record(link.node)?.kind().ok_or(BuildError::Corrupt("a mode"))?;
            out.put(&encode_dirent(name, len, kind.dirent_type(), self.inos[at(link.node)]))?;
            name += u32::from(len);
        }
        Ok(())
    }

    /// All names, folder by folder in order of inodes.
    fn links<'a, S: Source>(&'a self, source: &'a S, sorted: &'a Sorted) -> impl Iterator<Item = Link> + 'a {
        self.nodes.iter().flat_map(move |node| sorted.of(source.links(), *node))
    }

    fn files<'a, S: Source>(&'a self, source: &'a S, layout: u8) -> impl Iterator<Item = &'a u32> {
        self.nodes.iter().filter(move |n| source.record(**n).is_ok_and(|r| r.layout == layout))
    }
}

/// A writer that knows where it is, and pads to where the next section begins.
struct Sections<'a, W> {
    out: &'a mut W,
    at: u64,
    offsets: [u64; SECTIONS],
    lens: [u64; SECTIONS],
    next: usize,
}

impl<W: Write> Sections<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        self.at += bytes.len() as u64;
        Ok(self.out.write_all(bytes)?)
    }

    fn section(&mut self) -> Result<(), BuildError> {
        self.end()?;
        let padding = usize::try_from(self.offsets[self.next] - self.at).unwrap_or(0);
        self.put(&[0; 16][..padding])?;
        self.next += 1;
        Ok(())
    }

    /// A section as long as it was planned to be, or the source contradicted itself.
    fn end(&self) -> Result<(), BuildError> {
        let planned = self.next.checked_sub(1).map_or(self.at, |n| self.offsets[n] + self.lens[n]);
        if planned == self.at { Ok(()) } else { Err(BuildError::Corrupt("a section")) }
    }
}
