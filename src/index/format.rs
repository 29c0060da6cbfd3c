// SPDX-License-Identifier: Apache-2.0
//! The table's layout. Everything is little endian; a reader of another version refuses the file.
//!
//! ```text
//!   header    160 bytes: magic, version, use, length of the whole, layers, sum of file sizes, six sections
//!   inodes     48 bytes each; inode n is record n-1; 1 is the root; numbered breadth first, so that the children of a
//!                             folder lie together and a folder's number is below its subfolders'
//!   dirents    12 bytes each; those of one folder together, sorted by name, folders in order of their inodes
//!   extents    24 bytes each; those of one file together, sorted, not touching holes
//!   names      the dirents' names, one after the other
//!   blobs      link targets, and contents of files up to `INLINE_MAX`
//!   xattrs     sets: count u16, then name length u16, value length u32, name, value
//! ```
//!
//! An inode record:
//! ```text
//!    0 mode u16   2 layout u8   3 marks u8   4 nlink u32   8 uid u32   12 gid u32
//!   16 mtime, s i64   24 mtime, ns u32   28 xattr set u32 (offset + 1, or 0)   32 size u64   40 payload u64
//! ```
//! `size` of a folder is its parent's number. The payload by type and layout: folder: first dirent u32, count u32; link
//! and inline file: offset in blobs; file in one piece: place in data; file in pieces: first extent u32, count u32;
//! device: major u32, minor u32. A *place in data* is an offset (48 bits) and, above it, the number of the data file.

use crate::read::OpenError;
use std::ops::Range;

pub const MAGIC: [u8; 8] = *b"isopodix";
/// 1: the first.
pub const VERSION: u32 = 1;
pub const HEADER_LEN: usize = 160;
pub const INODE_LEN: usize = 48;
pub const DIRENT_LEN: usize = 12;
pub const EXTENT_LEN: usize = 24;
/// Sections begin at multiples of this.
pub const SECTION_ALIGN: u64 = 16;

/// Longest name of a directory entry, as in Linux.
pub const NAME_MAX: usize = 255;
/// Longest path from the root, and longest link target, as in Linux (`PATH_MAX` counts a NUL).
pub const PATH_MAX: usize = 4095;
/// Longest value of one extended attribute, and longest sum of an inode's names and values, as in Linux.
pub const XATTR_MAX: usize = 64 * 1024;
/// Files up to this size live in the index itself: a read of one costs no system call.
pub const INLINE_MAX: usize = 512;
/// Most layers one image may have: what overlay-based engines allow.
pub const LAYERS_MAX: usize = 127;
/// Largest file: what ext4 allows. Keeps every sum of an offset and a length far from overflow.
pub const FILE_MAX: u64 = 1 << 44;
/// Largest data file a place can name.
pub const DATA_MAX: u64 = 1 << 48;

pub(crate) const KIND_MASK: u16 = 0o170_000;
pub(crate) const MODE_MASK: u16 = 0o7_777;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    File,
    Folder,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
}

impl Kind {
    /// The `S_IFMT` bits of `st_mode`.
    pub const fn bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Folder => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::File => 0o100_000,
            Self::Symlink => 0o120_000,
        }
    }

    pub const fn from_bits(mode: u16) -> Option<Self> {
        Some(match mode & KIND_MASK {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Folder,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::File,
            0o120_000 => Self::Symlink,
            _ => return None,
        })
    }

    /// `d_type` of a directory entry (`DT_*`).
    pub const fn dirent_type(self) -> u8 {
        let [low, high] = self.bits().to_le_bytes();
        debug_assert!(low == 0);
        high >> 4
    }

    pub(crate) const fn from_dirent_type(byte: u8) -> Option<Self> {
        if byte > 15 { None } else { Self::from_bits(u16::from_le_bytes([0, byte << 4])) }
    }

    pub const fn is_device(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice)
    }
}

/// What the index is of: a layer's may hold whiteouts, links to be resolved, and folders nobody described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Layer,
    Image,
}

/// Where a file's contents are.
pub(crate) mod layout {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const INLINE: u8 = 1;
    pub(crate) const ONE: u8 = 2;
    pub(crate) const MANY: u8 = 3;
}

/// Marks of an inode; all but `IMPLICIT` occur in layers only.
pub(crate) mod marks {
    /// A folder that hides what lower layers have in it.
    pub(crate) const OPAQUE: u8 = 1;
    /// A folder no entry described: only the names beneath it said it is there.
    pub(crate) const IMPLICIT: u8 = 2;
    /// Takes the name away from lower layers. Nothing else if it is on a character device, as overlayfs has it; a
    /// folder with this mark takes the name's place.
    pub(crate) const WHITEOUT: u8 = 4;
    /// A hard link to a path in a lower layer. Its kind is a symlink, with the path as target.
    pub(crate) const LINK: u8 = 8;
}

/// An inode as the table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) mode: u16,
    pub(crate) layout: u8,
    pub(crate) marks: u8,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_ns: u32,
    pub(crate) mtime_s: i64,
    pub(crate) size: u64,
    pub(crate) payload: u64,
}

impl Record {
    /// A folder nobody described: what `mkdir -p` by root would make, at the epoch so that builds repeat.
    pub(crate) const IMPLICIT: Self = Self {
        mode: Kind::Folder.bits() | 0o755,
        layout: layout::NONE,
        marks: marks::IMPLICIT,
        uid: 0,
        gid: 0,
        mtime_ns: 0,
        mtime_s: 0,
        size: 0,
        payload: 0,
    };

    pub(crate) fn kind(&self) -> Option<Kind> {
        Kind::from_bits(self.mode)
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.mode & KIND_MASK == Kind::Folder.bits()
    }

    pub(crate) fn has(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    pub(crate) fn encode(&self, nlink: u32, xattrs: u32) -> [u8; INODE_LEN] {
        let mut out = [0; INODE_LEN];
        out[0..2].copy_from_slice(&self.mode.to_le_bytes());
        out[2] = self.layout;
        out[3] = self.marks;
        out[4..8].copy_from_slice(&nlink.to_le_bytes());
        out[8..12].copy_from_slice(&self.uid.to_le_bytes());
        out[12..16].copy_from_slice(&self.gid.to_le_bytes());
        out[16..24].copy_from_slice(&self.mtime_s.to_le_bytes());
        out[24..28].copy_from_slice(&self.mtime_ns.to_le_bytes());
        out[28..32].copy_from_slice(&xattrs.to_le_bytes());
        out[32..40].copy_from_slice(&self.size.to_le_bytes());
        out[40..48].copy_from_slice(&self.payload.to_le_bytes());
        out
    }

    /// The record, its link count and its xattr field.
    pub(crate) fn decode(b: &[u8; INODE_LEN]) -> (Self, u32, u32) {
        let record = Self {
            mode: u16::from_le_bytes([b[0], b[1]]),
            layout: b[2],
            marks: b[3],
            uid: u32_at(b, 8),
            gid: u32_at(b, 12),
            mtime_s: i64::from_le_bytes([b[16], b[17], b[18], b[19], b[20], b[21], b[22], b[23]]),
            mtime_ns: u32_at(b, 24),
            size: u64_at(b, 32),
            payload: u64_at(b, 40),
        };
        (record, u32_at(b, 4), u32_at(b, 28))
    }
}

/// Two halves of a payload: first and count, or major and minor.
pub(crate) const fn halves(payload: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = payload.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

pub(crate) const fn from_halves(low: u32, high: u32) -> u64 {
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, g, h] = high.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// A place in data: which data file, and the offset in it.
pub(crate) const fn place(layer: u16, offset: u64) -> u64 {
    let [l0, l1] = layer.to_le_bytes();
    let [a, b, c, d, e, f, _, _] = offset.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, l0, l1])
}

pub(crate) const fn from_place(place: u64) -> (u16, u64) {
    let [a, b, c, d, e, f, l0, l1] = place.to_le_bytes();
    (u16::from_le_bytes([l0, l1]), u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
}

/// Index of a record, name or byte in a section: an `usize` that came from 32 bits.
pub(crate) fn at(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

/// A directory entry as the table has it: name's offset and length, kind, inode.
pub(crate) fn encode_dirent(name: u32, len: u8, kind: u8, ino: u32) -> [u8; DIRENT_LEN] {
    let [n0, n1, n2, n3] = name.to_le_bytes();
    let [i0, i1, i2, i3] = ino.to_le_bytes();
    [n0, n1, n2, n3, i0, i1, i2, i3, len, kind, 0, 0]
}

/// Name's offset, name's length, kind, inode.
pub(crate) fn decode_dirent(b: &[u8; DIRENT_LEN]) -> (u32, u8, u8, u32) {
    (u32_at(b, 0), b[8], b[9], u32_at(b, 4))
}

/// File offset, length and place.
pub(crate) fn decode_extent(b: &[u8; EXTENT_LEN]) -> (u64, u64, u64) {
    (u64_at(b, 0), u64_at(b, 8), u64_at(b, 16))
}

pub(crate) const SECTIONS: usize = 6;

/// The header, checked: each range lies in the file and holds whole records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) used: Use,
    pub(crate) len: u64,
    pub(crate) layers: u16,
    pub(crate) bytes: u64,
    pub(crate) inodes: Range<usize>,
    pub(crate) dirents: Range<usize>,
    pub(crate) extents: Range<usize>,
    pub(crate) names: Range<usize>,
    pub(crate) blobs: Range<usize>,
    pub(crate) xattrs: Range<usize>,
}

impl Header {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        let have = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let header = bytes.get(..HEADER_LEN).ok_or(OpenError::Truncated { have })?;
        if header[..8] != MAGIC {
            return Err(OpenError::NotAnIndex);
        }
        if u32_at(header, 8) != VERSION {
            return Err(OpenError::Version(u32_at(header, 8)));
        }
        let used = match u32_at(header, 12) {
            0 => Use::Layer,
            1 => Use::Image,
            _ => return Err(OpenError::Header("use")),
        };
        if u64_at(header, 16) != have {
            return Err(OpenError::Truncated { have });
        }
        let section = |n: usize, record: usize, what: &'static str| {
            let start = usize::try_from(u64_at(header, 40 + n * 16)).ok();
            let len = usize::try_from(u64_at(header, 48 + n * 16)).ok();
            let end = start.zip(len).and_then(|(start, len)| start.checked_add(len));
            match (start, len, end) {
                (Some(start), Some(len), Some(end))
                    if start >= HEADER_LEN && end <= bytes.len() && len % record == 0 =>
                {
                    Ok(start..end)
                }
                _ => Err(OpenError::Header(what)),
            }
        };
        Ok(Self {
            used,
            len: have,
            layers: u16::try_from(u32_at(header, 24)).map_err(|_| OpenError::Header("layers"))?,
            bytes: u64_at(header, 32),
            inodes: section(0, INODE_LEN, "inodes")?,
            dirents: section(1, DIRENT_LEN, "dirents")?,
            extents: section(2, EXTENT_LEN, "extents")?,
            names: section(3, 1, "names")?,
            blobs: section(4, 1, "blobs")?,
            xattrs: section(5, 1, "xattrs")?,
        })
    }
}

/// The header of a table whose sections have these lengths, and each section's offset.
pub(crate) fn encode_header(
    used: Use,
    layers: u16,
    bytes: u64,
    sections: [u64; SECTIONS],
) -> ([u8; HEADER_LEN], [u64; SECTIONS]) {
    let mut out = [0; HEADER_LEN];
    let mut offsets = [0; SECTIONS];
    let mut end = HEADER_LEN as u64;
    for (n, len) in sections.into_iter().enumerate() {
        let start = end.next_multiple_of(SECTION_ALIGN);
        end = start + len;
        offsets[n] = start;
        out[40 + n * 16..48 + n * 16].copy_from_slice(&start.to_le_bytes());
        out[48 + n * 16..56 + n * 16].copy_from_slice(&len.to_le_bytes());
    }
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&u32::from(used == Use::Image).to_le_bytes());
    out[16..24].copy_from_slice(&end.to_le_bytes());
    out[24..28].copy_from_slice(&u32::from(layers).to_le_bytes());
    out[32..40].copy_from_slice(&bytes.to_le_bytes());
    (out, offsets)
}
