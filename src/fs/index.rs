// SPDX-License-Identifier: Apache-2.0
//! An image's files, from its index and the data files of its layers. The node numbers are the index's.
//!
//! The index was verified when it was built; still nothing here relies on that: what does not add up is EIO.

use crate::filesystem::{Attributes, DirEntry, FileSystem, Seek, Totals};
use crate::reply::Body;
use isopod_index::format::Kind;
use isopod_index::{Content, Extent, Extents, Index, Ino, Inode};
use rustix::io::Errno;
use std::fmt::{self, Debug, Formatter};
use std::fs::File;

/// `B` is what holds the index: a mapping, or a vector.
pub struct IndexServer<B> {
    index: Index<B>,
    layers: Vec<File>,
}

impl<B: AsRef<[u8]>> IndexServer<B> {
    /// `layers` are the data files the index names, in its order. A read from one that is missing is an I/O error.
    pub fn new(index: Index<B>, layers: Vec<File>) -> Self {
        Self { index, layers }
    }

    fn inode(&self, node: u64) -> Result<Inode, Errno> {
        let ino = u32::try_from(node).map_err(|_| Errno::STALE)?;
        self.index.inode(Ino(ino)).ok_or(Errno::STALE)
    }

    fn folder(&self, node: u64) -> Result<Ino, Errno> {
        let inode = self.inode(node)?;
        if inode.kind == Kind::Folder { Ok(inode.ino) } else { Err(Errno::NOTDIR) }
    }

    fn content(&self, inode: &Inode) -> Result<Content<'_>, Errno> {
        match inode.kind {
            Kind::File => self.index.content(inode.ino).ok_or(Errno::IO),
            Kind::Folder => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    fn read_extents(&self, extents: Extents<'_>, want: Want, body: &mut Body<'_>) -> Result<(), Errno> {
        let mut at = want.start;
        for extent in extents.from(want.start) {
            let start = extent.file_offset.max(at);
            let end = extent.file_offset.checked_add(extent.len).ok_or(Errno::IO)?.min(want.end);
            if start >= want.end {
                break;
            }
            if start >= end {
                continue;
            }
            body.zero(want.place(at), bytes(start - at));
            self.read_piece(&extent, Want { start, end, ..want }, body)?;
            at = end;
        }
        body.zero(want.place(at), bytes(want.end - at));
        Ok(())
    }

    /// `want` lies within `extent`.
    fn read_piece(&self, extent: &Extent, want: Want, body: &mut Body<'_>) -> Result<(), Errno> {
        let file = self.layers.get(usize::from(extent.layer)).ok_or(Errno::IO)?;
        let mut at = want.start;
        while at < want.end {
            let offset = extent.data_offset.checked_add(at - extent.file_offset).ok_or(Errno::IO)?;
            let read =
                body.fill(want.place(at), bytes(want.end - at), file, offset).map_err(|_| Errno::IO)?;
            if read == 0 {
                // The data file is shorter than the index says.
                return Err(Errno::IO);
            }
            at += u64::try_from(read).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

/// A part of a file, to be written from the front of a body.
#[derive(Clone, Copy)]
struct Want {
    /// The offset whose byte is the body's first.
    front: u64,
    start: u64,
    end: u64,
}

impl Want {
    fn place(&self, offset: u64) -> usize {
        bytes(offset - self.front)
    }
}

/// A difference of offsets within one read.
fn bytes(difference: u64) -> usize {
    usize::try_from(difference).unwrap_or(usize::MAX)
}

fn attributes(inode: &Inode) -> Attributes {
    Attributes {
        node: u64::from(inode.ino.0),
        mode: inode.st_mode(),
        links: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev.encode(),
        size: inode.size,
        time: (inode.mtime.seconds, inode.mtime.nanoseconds),
    }
}

impl<B: AsRef<[u8]> + Send> FileSystem for IndexServer<B> {
    fn attributes(&self, node: u64) -> Result<Attributes, Errno> {
        self.inode(node).map(|inode| attributes(&inode))
    }

    fn lookup(&self, folder: u64, name: &[u8]) -> Result<Option<Attributes>, Errno> {
        let folder = self.folder(folder)?;
        match self.index.lookup(folder, name) {
            Some(ino) => self.index.inode(ino).map(|inode| Some(attributes(&inode))).ok_or(Errno::IO),
            None => Ok(None),
        }
    }

    fn entry(&self, folder: u64, position: u64) -> Result<Option<DirEntry<'_>>, Errno> {
        let ino = self.folder(folder)?;
        let kind = u32::from(Kind::Folder.dirent_type());
        match position {
            0 => Ok(Some(DirEntry { node: folder, kind, name: b"." })),
            1 => {
                let parent = self.index.parent(ino).ok_or(Errno::IO)?;
                Ok(Some(DirEntry { node: u64::from(parent.0), kind, name: b".." }))
            }
            _ => {
                let Ok(n) = u32::try_from(position - 2) else {
                    return Ok(None);
                };
                Ok(self.index.entry_at(ino, n).map(|entry| DirEntry {
                    node: u64::from(entry.ino.0),
                    kind: u32::from(entry.kind.dirent_type()),
                    name: entry.name,
                }))
            }
        }
    }

    fn link_target(&self, node: u64) -> Result<&[u8], Errno> {
        let inode = self.inode(node)?;
        if inode.kind != Kind::Symlink {
            return Err(Errno::INVAL);
        }
        self.index.link_target(inode.ino).ok_or(Errno::IO)
    }

    fn read(&self, node: u64, offset: u64, len: usize, body: &mut Body<'_>) -> Result<usize, Errno> {
        let inode = self.inode(node)?;
        let content = self.content(&inode)?;
        let left = inode.size.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
        let end = offset.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        if len == 0 {
            return Ok(0);
        }
        match content {
            Content::Inline(all) => body.put(0, all.get(bytes(offset)..bytes(end)).ok_or(Errno::IO)?),
            Content::Extents(extents) => {
                self.read_extents(extents, Want { front: offset, start: offset, end }, body)?;
            }
        }
        Ok(len)
    }

    fn seek(&self, node: u64, offset: u64, to: Seek) -> Result<u64, Errno> {
        let inode = self.inode(node)?;
        let content = self.content(&inode)?;
        if offset >= inode.size {
            return Err(Errno::NXIO);
        }
        let Content::Extents(extents) = content else {
            return Ok(if to == Seek::Data { offset } else { inode.size });
        };
        let mut pieces = extents.from(offset);
        match to {
            Seek::Data => pieces.next().map(|extent| extent.file_offset.max(offset)).ok_or(Errno::NXIO),
            Seek::Hole => {
                let mut at = offset;
                for extent in pieces {
                    if extent.file_offset > at {
                        break;
                    }
                    at = extent.file_offset.saturating_add(extent.len).max(at);
                }
                Ok(at.min(inode.size))
            }
        }
    }

    fn xattr(&self, node: u64, name: &[u8]) -> Result<&[u8], Errno> {
        let inode = self.inode(node)?;
        if !self.index.has_xattrs() {
            return Err(Errno::NOSYS);
        }
        self.index.xattr(inode.ino, name).ok_or(Errno::NODATA)
    }

    fn xattr_names(&self, node: u64, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
        let inode = self.inode(node)?;
        self.index.xattrs(inode.ino).for_each(|(name, _)| each(name));
        Ok(())
    }

    fn totals(&self) -> Totals {
        let counts = self.index.counts();
        Totals { files: counts.inodes, bytes: counts.bytes }
    }
}

impl<B> Debug for IndexServer<B> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexServer").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}
