// SPDX-License-Identifier: Apache-2.0
//! Looking things up in a mapped table.
//!
//! Nothing here trusts the table: `Index::open` checks the header, and every accessor checks what it follows, so that
//! on any bytes at all it gives an answer or `None` in bounded time. Only `verify` says that the answers agree with
//! each other; a table that `verify` accepted when it was built, and that a digest has vouched for since, needs no
//! second look.

use crate::format::{
    DIRENT_LEN, EXTENT_LEN, Header, INODE_LEN, Kind, MODE_MASK, Record, Use, at, decode_dirent, halves,
    layout,
};
use iter::Pieces;
use std::cmp::Ordering;
use thiserror::Error;

mod iter;

pub use iter::{Entries, Extents, Xattrs};

/// The number of a file; hard links share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u32);

impl Ino {
    pub const ROOT: Self = Self(1);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    #[error("not a file index")]
    NotAnIndex,
    #[error("a file index of version {0}, which this build does not read")]
    Version(u32),
    #[error("a file index cut short or padded: it has {have} bytes")]
    Truncated { have: u64 },
    #[error("a file index whose header is wrong about its {0}")]
    Header(&'static str),
}

/// Seconds since the epoch and nanoseconds after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// A device's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

impl Device {
    /// Most the kernel can express.
    pub const MAJOR_MAX: u32 = 0xfff;
    pub const MINOR_MAX: u32 = 0xf_ffff;

    /// As `struct fuse_attr` and `struct statx`'s siblings in the kernel have it (`new_encode_dev`).
    pub const fn encode(self) -> u32 {
        (self.minor & 0xff) | ((self.major & Self::MAJOR_MAX) << 8) | ((self.minor & 0xf_ff00) << 12)
    }
}

/// What `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    pub ino: Ino,
    pub kind: Kind,
    /// Permission bits, setuid, setgid and sticky: 07777.
    pub mode: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a link: its target's length. Of a folder: one block.
    pub size: u64,
    /// Zeros but for devices.
    pub rdev: Device,
    pub mtime: Time,
}

impl Inode {
    /// `st_mode`.
    pub fn st_mode(&self) -> u32 {
        u32::from(self.kind.bits() | self.mode)
    }
}

/// One name in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub ino: Ino,
    pub kind: Kind,
}

/// A piece of a file in a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub file_offset: u64,
    pub len: u64,
    /// Which data file.
    pub layer: u16,
    pub data_offset: u64,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    Inline(&'a [u8]),
    /// Sorted; what lies between them, or after the last, is a hole.
    Extents(Extents<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub inodes: u64,
    /// Names in all folders together.
    pub entries: u64,
    /// Sum of the sizes of regular files, each once.
    pub bytes: u64,
}

/// A table over bytes someone holds: a mapping or a buffer.
#[derive(Debug)]
pub struct Index<B> {
    bytes: B,
    header: Header,
}

impl<B: AsRef<[u8]>> Index<B> {
    pub fn open(bytes: B) -> Result<Self, OpenError> {
        let header = Header::decode(bytes.as_ref())?;
        Ok(Self { bytes, header })
    }

    pub fn used(&self) -> Use {
        self.header.used
    }

    /// Bytes of the whole table.
    pub fn size(&self) -> u64 {
        self.header.len
    }

    pub fn counts(&self) -> Counts {
        let (inodes, entries) = (self.view().inodes(), self.view().dirents());
        Counts { inodes: u64::from(inodes), entries: u64::from(entries), bytes: self.header.bytes }
    }

    /// How many data files extents may name: 0 up to this.
    pub fn layers(&self) -> usize {
        usize::from(self.header.layers)
    }

    pub fn inode(&self, ino: Ino) -> Option<Inode> {
        self.view().inode(ino)
    }

    /// By binary search.
    pub fn lookup(&self, dir: Ino, name: &[u8]) -> Option<Ino> {
        self.view().lookup(dir, name).map(|entry| entry.ino)
    }

    /// A folder's entries, sorted by name, without `.` and `..`; nothing if it is none.
    pub fn entries(&self, dir: Ino) -> Entries<'_> {
        self.view().entries(dir)
    }

    /// The `n`th of `entries`, at the cost of one.
    pub fn entry_at(&self, dir: Ino, n: u32) -> Option<Entry<'_>> {
        let mut entries = self.view().entries(dir);
        entries.next = entries.next.checked_add(n)?;
        entries.next()
    }

    /// The folder a folder is in; the root is in itself.
    pub fn parent(&self, dir: Ino) -> Option<Ino> {
        self.view().parent(dir)
    }

    pub fn link_target(&self, ino: Ino) -> Option<&[u8]> {
        self.view().link_target(ino)
    }

    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Option<&[u8]> {
        self.xattrs(ino).find(|(have, _)| *have == name).map(|(_, value)| value)
    }

    /// Whether any file has an extended attribute.
    pub fn has_xattrs(&self) -> bool {
        !self.header.xattrs.is_empty()
    }

    /// Names and values, sorted by name.
    pub fn xattrs(&self, ino: Ino) -> Xattrs<'_> {
        self.view().xattrs(ino)
    }

    /// Where a regular file's contents are; `None` if it is none.
    pub fn content(&self, ino: Ino) -> Option<Content<'_>> {
        self.view().content(ino)
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { bytes: self.bytes.as_ref(), header: &self.header }
    }
}

/// The table, whoever holds its bytes: all logic is here, once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) header: &'a Header,
}

impl<'a> View<'a> {
    pub(crate) fn inodes(&self) -> u32 {
        u32::try_from(self.header.inodes.len() / INODE_LEN).unwrap_or(u32::MAX)
    }

    pub(crate) fn dirents(&self) -> u32 {
        u32::try_from(self.header.dirents.len() / DIRENT_LEN).unwrap_or(u32::MAX)
    }

    /// Record, link count, xattr field.
    pub(crate) fn record(&self, ino: Ino) -> Option<(Record, u32, u32)> {
        let n = at(ino.0.checked_sub(1)?);
        let bytes = self.bytes.get(self.header.inodes.clone())?;
        Some(Record::decode(bytes.get(n.checked_mul(INODE_LEN)?..)?.first_chunk()?))
    }

    pub(crate) fn inode(&self, ino: Ino) -> Option<Inode> {
        let (record, nlink, _) = self.record(ino)?;
        let kind = record.kind()?;
        let (major, minor) = halves(record.payload);
        Some(Inode {
            ino,
            kind,
            mode: record.mode & MODE_MASK,
            nlink,
            uid: record.uid,
            gid: record.gid,
            size: if kind == Kind::Folder { 4096 } else { record.size },
            rdev: if kind.is_device() { Device { major, minor } } else { Device::default() },
            mtime: Time { seconds: record.mtime_s, nanoseconds: record.mtime_ns },
        })
    }

    /// A dirent by its place in the whole table.
    pub(crate) fn dirent(&self, n: u32) -> Option<Entry<'a>> {
        let dirents = self.bytes.get(self.header.dirents.clone())?;
        let (name, len, kind, ino) =
            decode_dirent(dirents.get(at(n).checked_mul(DIRENT_LEN)?..)?.first_chunk()?);
        let names = self.bytes.get(self.header.names.clone())?;
        let name = names.get(at(name)..)?.get(..usize::from(len))?;
        Some(Entry { name, ino: Ino(ino), kind: Kind::from_dirent_type(kind)? })
    }

    pub(crate) fn entries(&self, dir: Ino) -> Entries<'a> {
        let (next, end) = match self.record(dir) {
            Some((record, ..)) if record.is_folder() => {
                let (first, count) = halves(record.payload);
                (first, first.saturating_add(count).min(self.dirents()))
            }
            _ => (0, 0),
        };
        Entries { view: *self, next, end }
    }

    pub(crate) fn lookup(&self, dir: Ino, name: &[u8]) -> Option<Entry<'a>> {
        let Entries { next: mut low, end: mut high, .. } = self.entries(dir);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.dirent(middle)?;
            match entry.name.cmp(name) {
                Ordering::Equal => return Some(entry),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    pub(crate) fn parent(&self, dir: Ino) -> Option<Ino> {
        let (record, ..) = self.record(dir)?;
        record.is_folder().then(|| u32::try_from(record.size).ok().map(Ino))?
    }

    fn blob(&self, record: &Record) -> Option<&'a [u8]> {
        let start = usize::try_from(record.payload).ok()?;
        let blobs = self.bytes.get(self.header.blobs.clone())?;
        blobs.get(start..)?.get(..usize::try_from(record.size).ok()?)
    }

    /// Target of a link or contents of an inline file.
    pub(crate) fn blob_of(&self, ino: Ino) -> Option<&'a [u8]> {
        let (record, ..) = self.record(ino)?;
        self.blob(&record)
    }

    pub(crate) fn link_target(&self, ino: Ino) -> Option<&'a [u8]> {
        let (record, ..) = self.record(ino)?;
        if record.kind()? == Kind::Symlink { self.blob(&record) } else { None }
    }

    pub(crate) fn content(&self, ino: Ino) -> Option<Content<'a>> {
        let (record, ..) = self.record(ino)?;
        if record.kind()? != Kind::File {
            return None;
        }
        let pieces = |pieces| Content::Extents(Extents { size: record.size, pieces });
        Some(match record.layout {
            layout::NONE => pieces(Pieces::Table(&[])),
            layout::INLINE => Content::Inline(self.blob(&record)?),
            layout::ONE => pieces(Pieces::One(record.payload)),
            layout::MANY => {
                let (first, count) = halves(record.payload);
                let extents = self.bytes.get(self.header.extents.clone())?;
                let start = at(first).checked_mul(EXTENT_LEN)?;
                pieces(Pieces::Table(extents.get(start..)?.get(..at(count).checked_mul(EXTENT_LEN)?)?))
            }
            _ => return None,
        })
    }

    pub(crate) fn xattrs(&self, ino: Ino) -> Xattrs<'a> {
        self.xattr_set(ino).unwrap_or_default()
    }

    /// How many attributes the set says it has.
    pub(crate) fn xattr_count(&self, ino: Ino) -> Option<u16> {
        self.xattr_set(ino).map(|set| set.left)
    }

    /// Where an inode's set begins in its section, and its bytes.
    pub(crate) fn xattr_bytes(&self, ino: Ino) -> Option<(u32, &'a [u8])> {
        let (_, _, set) = self.record(ino)?;
        let offset = set.checked_sub(1)?;
        let section = self.bytes.get(self.header.xattrs.clone())?.get(at(offset)..)?;
        let mut items = Xattrs::parse(section)?;
        items.by_ref().for_each(drop);
        Some((offset, section.get(..section.len() - items.rest.len())?))
    }

    fn xattr_set(&self, ino: Ino) -> Option<Xattrs<'a>> {
        let (_, _, set) = self.record(ino)?;
        let section = self.bytes.get(self.header.xattrs.clone())?;
        Xattrs::parse(section.get(at(set.checked_sub(1)?)..)?)
    }
}
