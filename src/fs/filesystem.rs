// SPDX-License-Identifier: Apache-2.0
//! What a file system behind the server owes. Nodes are numbers a guest sends: each call looks its own up, and answers
//! `STALE` to one that is nothing.

use crate::reply::Body;
use rustix::io::Errno;
use std::fmt::Debug;

/// The root's number, as FUSE has it.
pub const ROOT: u64 = 1;

/// What `stat` says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    pub node: u64,
    /// `st_mode`, with the type.
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    /// Of the last change, in seconds and nanoseconds; all three times of a file are this.
    pub time: (i64, u32),
}

/// One name in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    pub node: u64,
    /// `DT_*`.
    pub kind: u32,
    pub name: &'a [u8],
}

/// For STATFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub files: u64,
    pub bytes: u64,
}

/// Where LSEEK is to go from an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    Data,
    Hole,
}

/// A read-only file system.
pub trait FileSystem: Debug + Send {
    fn attributes(&self, node: u64) -> Result<Attributes, Errno>;

    /// `None`: there is no such name, and there never will be.
    fn lookup(&self, folder: u64, name: &[u8]) -> Result<Option<Attributes>, Errno>;

    /// The entry at a position, `.` and `..` being 0 and 1; `None` behind the last.
    fn entry(&self, folder: u64, position: u64) -> Result<Option<DirEntry<'_>>, Errno>;

    fn link_target(&self, node: u64) -> Result<&[u8], Errno>;

    /// Writes contents from `offset` on to the front of `body`, at most `len` bytes and at most what there is room
    /// for; gives how many.
    fn read(&self, node: u64, offset: u64, len: usize, body: &mut Body<'_>) -> Result<usize, Errno>;

    fn seek(&self, node: u64, offset: u64, to: Seek) -> Result<u64, Errno>;

    /// `NOSYS` if no file has any: then nobody asks again.
    fn xattr(&self, node: u64, name: &[u8]) -> Result<&[u8], Errno>;

    /// Calls `each` with the name of every extended attribute.
    fn xattr_names(&self, node: u64, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno>;

    fn totals(&self) -> Totals;
}

/// The file system of a share whose files are yet to come. Nobody mounts it; who does finds no root.
#[derive(Debug)]
pub struct Nothing;

impl FileSystem for Nothing {
    fn attributes(&self, _node: u64) -> Result<Attributes, Errno> {
        Err(Errno::STALE)
    }

    fn lookup(&self, _folder: u64, _name: &[u8]) -> Result<Option<Attributes>, Errno> {
        Err(Errno::STALE)
    }

    fn entry(&self, _folder: u64, _position: u64) -> Result<Option<DirEntry<'_>>, Errno> {
        Err(Errno::STALE)
    }

    fn link_target(&self, _node: u64) -> Result<&[u8], Errno> {
        Err(Errno::STALE)
    }

    fn read(&self, _node: u64, _offset: u64, _len: usize, _body: &mut Body<'_>) -> Result<usize, Errno> {
        Err(Errno::STALE)
    }

    fn seek(&self, _node: u64, _offset: u64, _to: Seek) -> Result<u64, Errno> {
        Err(Errno::STALE)
    }

    fn xattr(&self, _node: u64, _name: &[u8]) -> Result<&[u8], Errno> {
        Err(Errno::STALE)
    }

    fn xattr_names(&self, _node: u64, _each: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
        Err(Errno::STALE)
    }

    fn totals(&self) -> Totals {
        Totals { files: 0, bytes: 0 }
    }
}
