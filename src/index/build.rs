// SPDX-License-Identifier: Apache-2.0
//! The tree of one layer, in memory, while its archive is read; or a small image made by hand.
//!
//! A node costs 40 bytes, a name 13 and itself, and all of it has a limit, so that a million files fit where a
//! hostile archive may not grow. A later entry of a name takes the place of an earlier one; a folder given again only
//! gets new attributes. A name taken from a folder leaves its subtree unreachable, and what is unreachable is not
//! written.
//!
//! A layer's tree says what the layer does to those below it: *whiteouts* take names away, *opaque* folders hide what
//! lower layers have in them, *implicit* folders are there only because something is beneath them (the lower layer may
//! have a link at that place, to be followed), and *later links* are hard links to what a lower layer has.

use crate::emit::emit;
use crate::format::{
    DATA_MAX, FILE_MAX, INLINE_MAX, Kind, MODE_MASK, NAME_MAX, PATH_MAX, Record, Use, XATTR_MAX, at,
    from_halves, layout, marks, place,
};
use crate::keep::{Arena, Sets};
use crate::links::{Link, Links, NOTHING};
use crate::read::{Device, Extent, Time};
use std::collections::{BTreeMap, HashMap};
use std::io::{Error as IoError, Write};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum BuildError {
    #[error("a name must have 1 to {NAME_MAX} bytes, none of them `/` or NUL, and not be `.` or `..`")]
    BadName,
    #[error("a path of {len} bytes, more than the {PATH_MAX} allowed")]
    PathTooLong { len: usize },
    #[error("a link target must have 1 to {PATH_MAX} bytes, none of them NUL")]
    BadTarget,
    #[error("a file of {size} bytes, more than the {FILE_MAX} allowed")]
    FileTooLarge { size: u64 },
    #[error("pieces of a file that overlap, are out of order, or lie outside it")]
    BadExtents,
    #[error(
        "extended attributes over {XATTR_MAX} bytes, or one whose name is empty, over {NAME_MAX} bytes or has a NUL"
    )]
    BadXattrs,
    #[error("device numbers out of range: {}:{}", .0.major, .0.minor)]
    BadDevice(Device),
    #[error("nanoseconds out of range")]
    BadTime,
    #[error("something that is not a folder has a name beneath it")]
    NotAFolder,
    #[error("a hard link to a folder")]
    LinkToFolder,
    #[error("a hard link to `{}`, which is nowhere in this layer or below", .0.escape_ascii())]
    LinkToNothing(Vec<u8>),
    #[error("too many symbolic links on the way to `{}`", .0.escape_ascii())]
    LinkLoop(Vec<u8>),
    #[error("file names and attributes need more than the {limit} bytes allowed")]
    TooLarge { limit: usize },
    #[error("more entries than an index can number")]
    TooManyEntries,
    #[error("{layers} layers, more than an image may have")]
    TooManyLayers { layers: usize },
    #[error("a table that contradicts itself: {0}")]
    Corrupt(&'static str),
    #[error("cannot write the index")]
    Io(#[from] IoError),
}

/// A file of a tree, while the tree lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(u32);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// 07777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Extended attributes, by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is, and what it has besides attributes.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    Folder,
    Symlink(&'a [u8]),
    /// Contents of at most `INLINE_MAX` bytes.
    Inline(&'a [u8]),
    /// Contents in data files; what no extent covers is a hole.
    File {
        size: u64,
        extents: &'a [Extent],
    },
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
}

/// What a name stands for in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// Nothing, as far as this tree knows; it may say that lower layers' is gone.
    Nothing,
    Folder(Node),
    Symlink(Node, &'a [u8]),
    Other(Node),
}

#[derive(Debug)]
pub struct Tree {
    used: Use,
    limit: usize,
    records: Vec<Record>,
    links: Links,
    names: Arena,
    blobs: Vec<u8>,
    extents: Vec<(u64, u64, u64)>,
    xattrs: HashMap<u32, (u32, u32)>,
    sets: Sets,
}

/// The node all whiteouts of a layer share.
const WHITEOUT: u32 = 1;

impl Tree {
    pub const ROOT: Node = Node(0);

    /// An empty tree that will hold at most `limit` bytes.
    pub fn new(used: Use, limit: usize) -> Self {
        let whiteout = Record { mode: Kind::CharDevice.bits(), marks: marks::WHITEOUT, ..Record::IMPLICIT };
        Self {
            used,
            limit,
            records: vec![Record::IMPLICIT, whiteout],
            links: Links::default(),
            names: Arena::default(),
            blobs: Vec::new(),
            extents: Vec::new(),
            xattrs: HashMap::new(),
            sets: Sets::default(),
        }
    }

    /// Bytes held now.
    pub fn memory(&self) -> usize {
        self.records.len() * size_of::<Record>()
            + self.links.memory()
            + self.names.len()
            + self.blobs.len()
            + self.extents.len() * size_of::<(u64, u64, u64)>()
            + self.xattrs.len() * 32
            + self.sets.memory()
    }

    /// Names given so far, those taken back included.
    pub fn entries(&self) -> usize {
        self.links.len()
    }

    pub fn find(&self, folder: Node, name: &[u8]) -> Found<'_> {
        let Some(link) = self.links.find(&self.names, folder.0, name) else {
            return Found::Nothing;
        };
        let number = self.links.get(link).node;
        let node = Node(number);
        match self.record_of(number) {
            None => Found::Nothing,
            Some(record) if record.is_folder() => Found::Folder(node),
            Some(record) if record.has(marks::WHITEOUT) => Found::Nothing,
            Some(record) if record.kind() == Some(Kind::Symlink) && !record.has(marks::LINK) => {
                Found::Symlink(node, self.blob_of(&record))
            }
            Some(_) => Found::Other(node),
        }
    }

    /// The folder of this name, made implicitly if nothing is there.
    pub fn enter(&mut self, folder: Node, name: &[u8]) -> Result<Node, BuildError> {
        match self.find(folder, name) {
            Found::Folder(node) => Ok(node),
            Found::Nothing => self.set(folder, name, Record::IMPLICIT),
            _ => Err(BuildError::NotAFolder),
        }
    }

    /// Gives `name` in `folder` to a new file, or new attributes to a folder that has it.
    pub fn put(
        &mut self,
        folder: Node,
        name: &[u8],
        attributes: &Attributes,
        body: Body<'_>,
    ) -> Result<Node, BuildError> {
        check_name(name)?;
        let record = self.record_for(attributes, body)?;
        let set = self.sets.add(&attributes.xattrs)?;
        let node = match (self.find(folder, name), record.is_folder()) {
            (Found::Folder(node), true) => {
                self.redescribe(node, record);
                node
            }
            _ => self.set(folder, name, record)?,
        };
        self.set_xattrs(node, set);
        self.check_memory().map(|()| node)
    }

    /// Gives the root its attributes.
    pub fn describe_root(&mut self, attributes: &Attributes) -> Result<(), BuildError> {
        let record = self.record_for(attributes, Body::Folder)?;
        let set = self.sets.add(&attributes.xattrs)?;
        self.redescribe(Self::ROOT, record);
        self.set_xattrs(Self::ROOT, set);
        self.check_memory()
    }

    /// Gives another name to a file of this tree.
    pub fn link(&mut self, folder: Node, name: &[u8], node: Node) -> Result<(), BuildError> {
        check_name(name)?;
        match self.record_of(node.0) {
            Some(record) if !record.is_folder() => {}
            _ => return Err(BuildError::LinkToFolder),
        }
        let link = self.link_of(folder, name)?;
        self.links.point(link, node.0);
        self.check_memory()
    }

    /// Gives a name to the file lower layers have at `path` (absolute, without `.` and `..`).
    pub fn link_later(&mut self, folder: Node, name: &[u8], path: &[u8]) -> Result<(), BuildError> {
        check_name(name)?;
        let mut record = self.record_for(&Attributes::default(), Body::Symlink(path))?;
        record.marks = marks::LINK;
        self.set(folder, name, record)?;
        self.check_memory()
    }

    /// Takes away what lower layers have under this name; what this layer has under it stays.
    pub fn whiteout(&mut self, folder: Node, name: &[u8]) -> Result<(), BuildError> {
        check_name(name)?;
        match self.find(folder, name) {
            Found::Folder(node) => self.opaque(node),
            Found::Nothing => {
                let link = self.link_of(folder, name)?;
                self.links.point(link, WHITEOUT);
            }
            _ => {}
        }
        self.check_memory()
    }

    /// Hides what lower layers have in this folder.
    pub fn opaque(&mut self, folder: Node) {
        if let Some(record) = self.records.get_mut(at(folder.0)) {
            record.marks |= marks::OPAQUE;
        }
    }

    /// Writes the table of everything reachable.
    pub fn write(&self, out: &mut impl Write) -> Result<(), BuildError> {
        emit(self, out)
    }

    fn record_of(&self, node: u32) -> Option<Record> {
        self.records.get(at(node)).copied()
    }

    fn blob_of(&self, record: &Record) -> &[u8] {
        let start = usize::try_from(record.payload).unwrap_or(usize::MAX);
        let len = usize::try_from(record.size).unwrap_or(usize::MAX);
        self.blobs.get(start..).and_then(|rest| rest.get(..len)).unwrap_or_default()
    }

    fn redescribe(&mut self, folder: Node, mut record: Record) {
        if let Some(old) = self.records.get_mut(at(folder.0)) {
            record.marks |= old.marks & (marks::OPAQUE | marks::WHITEOUT);
            *old = record;
        }
    }

    fn set_xattrs(&mut self, node: Node, set: Option<(u32, u32)>) {
        match set {
            Some(set) => self.xattrs.insert(node.0, set),
            None => self.xattrs.remove(&node.0),
        };
    }

    /// Points `name` at a new node. A folder in the place of something else takes away what lower layers have there.
    fn set(&mut self, folder: Node, name: &[u8], mut record: Record) -> Result<Node, BuildError> {
        let link = self.link_of(folder, name)?;
        if record.is_folder() && self.links.get(link).node != NOTHING && self.used == Use::Layer {
            record.marks |= marks::WHITEOUT;
        }
        let node = u32::try_from(self.records.len()).map_err(|_| BuildError::TooManyEntries)?;
        self.records.push(record);
        self.links.point(link, node);
        self.check_memory().map(|()| Node(node))
    }

    /// The link of a name, made if it is new.
    fn link_of(&mut self, folder: Node, name: &[u8]) -> Result<u32, BuildError> {
        check_name(name)?;
        if let Some(link) = self.links.find(&self.names, folder.0, name) {
            return Ok(link);
        }
        let name = self.names.add(name).ok_or(BuildError::TooManyEntries)?;
        let link = Link { parent: folder.0, name, node: NOTHING };
        self.links.add(&self.names, link).ok_or(BuildError::TooManyEntries)
    }

    fn record_for(&mut self, attributes: &Attributes, body: Body<'_>) -> Result<Record, BuildError> {
        if attributes.mtime.nanoseconds >= 1_000_000_000 {
            return Err(BuildError::BadTime);
        }
        let mut record = Record {
            mode: attributes.mode & MODE_MASK,
            layout: layout::NONE,
            marks: 0,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime_ns: attributes.mtime.nanoseconds,
            mtime_s: attributes.mtime.seconds,
            size: 0,
            payload: 0,
        };
        let kind = match body {
            Body::Folder => Kind::Folder,
            Body::Fifo => Kind::Fifo,
            Body::CharDevice(device) => {
                record.payload = device_payload(device)?;
                Kind::CharDevice
            }
            Body::BlockDevice(device) => {
                record.payload = device_payload(device)?;
                Kind::BlockDevice
            }
            Body::Symlink(target) => {
                if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) {
                    return Err(BuildError::BadTarget);
                }
                self.keep(target, &mut record);
                Kind::Symlink
            }
            Body::Inline(bytes) => {
                if bytes.len() > INLINE_MAX {
                    return Err(BuildError::FileTooLarge { size: bytes.len() as u64 });
                }
                if !bytes.is_empty() {
                    record.layout = layout::INLINE;
                    self.keep(bytes, &mut record);
                }
                Kind::File
            }
            Body::File { size, extents } => {
                self.keep_extents(size, extents, &mut record)?;
                Kind::File
            }
        };
        record.mode |= kind.bits();
        Ok(record)
    }

    fn keep(&mut self, bytes: &[u8], record: &mut Record) {
        record.payload = self.blobs.len() as u64;
        record.size = bytes.len() as u64;
        self.blobs.extend_from_slice(bytes);
    }

    fn keep_extents(&mut self, size: u64, extents: &[Extent], record: &mut Record) -> Result<(), BuildError> {
        if size > FILE_MAX {
            return Err(BuildError::FileTooLarge { size });
        }
        let mut end = 0;
        for e in extents {
            let (file_end, data_end) = (e.file_offset.checked_add(e.len), e.data_offset.checked_add(e.len));
            if e.file_offset < end || e.len == 0 || data_end.is_none_or(|end| end > DATA_MAX) {
                return Err(BuildError::BadExtents);
            }
            end = file_end.filter(|end| *end <= size).ok_or(BuildError::BadExtents)?;
        }
        record.size = size;
        match extents {
            [] => {}
            [one] if one.len == size => {
                record.layout = layout::ONE;
                record.payload = place(one.layer, one.data_offset);
            }
            many => {
                let first = u32::try_from(self.extents.len()).map_err(|_| BuildError::TooManyEntries)?;
                let count = u32::try_from(many.len()).map_err(|_| BuildError::TooManyEntries)?;
                record.layout = layout::MANY;
                record.payload = from_halves(first, count);
                self.extents
                    .extend(many.iter().map(|e| (e.file_offset, e.len, place(e.layer, e.data_offset))));
            }
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), BuildError> {
        if self.memory() > self.limit { Err(BuildError::TooLarge { limit: self.limit }) } else { Ok(()) }
    }
}

fn device_payload(device: Device) -> Result<u64, BuildError> {
    if device.major > Device::MAJOR_MAX || device.minor > Device::MINOR_MAX {
        return Err(BuildError::BadDevice(device));
    }
    Ok(from_halves(device.major, device.minor))
}

/// Whether a folder may have this name.
pub(crate) fn good_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.iter().any(|b| matches!(b, b'/' | 0))
        && name != b"."
        && name != b".."
}

fn check_name(name: &[u8]) -> Result<(), BuildError> {
    if good_name(name) { Ok(()) } else { Err(BuildError::BadName) }
}

mod source;
#[cfg(test)]
mod tests;
