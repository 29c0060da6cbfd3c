// SPDX-License-Identifier: Apache-2.0
//! FUSE as the kernel speaks it (`include/uapi/linux/fuse.h`, 7.38 and what is later but compatible): numbers, and
//! readers and writers of its structures as little-endian bytes.

use crate::filesystem::Attributes;

pub const VERSION_MAJOR: u32 = 7;
pub const VERSION_MINOR: u32 = 38;
/// Oldest minor version whose structures are all as long as those here.
pub const VERSION_MINOR_MIN: u32 = 23;

pub const IN_HEADER_LEN: usize = 40;
pub const OUT_HEADER_LEN: usize = 16;
pub const ATTR_LEN: usize = 88;
pub const ENTRY_LEN: usize = 40 + ATTR_LEN;
/// `struct fuse_dirent` without its name.
pub const DIRENT_LEN: usize = 24;

/// Requests, by `enum fuse_opcode`.
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const TMPFILE: u32 = 51;
}

/// Flags of INIT, `FUSE_*`.
pub mod init {
    pub const ASYNC_READ: u32 = 1 << 0;
    pub const DO_READDIRPLUS: u32 = 1 << 13;
    pub const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub const NO_OPEN_SUPPORT: u32 = 1 << 17;
    pub const PARALLEL_DIROPS: u32 = 1 << 18;
    pub const MAX_PAGES: u32 = 1 << 22;
    pub const CACHE_SYMLINKS: u32 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u32 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u32 = 1 << 25;
}

/// Flags of OPEN's and OPENDIR's answers, `FOPEN_*`.
pub mod fopen {
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const CACHE_DIR: u32 = 1 << 3;
}

/// How long a guest may believe what it was told, in seconds: an image never changes. Not the largest number, because
/// the kernel multiplies it.
pub const FOREVER: u64 = 1 << 32;

/// Takes integers off the front of a structure; `None` where it is too short.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a>(pub &'a [u8]);

impl Take<'_> {
    pub fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
}

/// A structure being written, of at most `N` bytes; more than that is a mistake in this crate.
#[derive(Debug)]
pub struct Put<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Put<N> {
    pub fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    pub fn u16(self, value: u16) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn i32(self, value: i32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn i64(self, value: i64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn raw(mut self, value: &[u8]) -> Self {
        let room = self.bytes.get_mut(self.len..self.len + value.len());
        room.expect("each structure is declared as long as it is").copy_from_slice(value);
        self.len += value.len();
        self
    }

    /// Zeros up to `len`.
    pub fn pad(mut self, len: usize) -> Self {
        self.len = self.len.max(len.min(N));
        self
    }

    /// `struct fuse_attr`.
    pub fn attr(self, of: &Attributes) -> Self {
        let (seconds, nanoseconds) = of.time;
        self.u64(of.node)
            .u64(of.size)
            .u64(of.size.div_ceil(512))
            .i64(seconds)
            .i64(seconds)
            .i64(seconds)
            .u32(nanoseconds)
            .u32(nanoseconds)
            .u32(nanoseconds)
            .u32(of.mode)
            .u32(of.links)
            .u32(of.uid)
            .u32(of.gid)
            .u32(of.rdev)
            .u32(BLOCK)
            .u32(0)
    }

    /// `struct fuse_entry_out`; without attributes, that there is no such name.
    pub fn entry(self, of: Option<&Attributes>) -> Self {
        let head = self.u64(of.map_or(0, |of| of.node)).u64(0).u64(FOREVER).u64(FOREVER).u32(0).u32(0);
        match of {
            Some(attributes) => head.attr(attributes),
            None => {
                let len = head.len + ATTR_LEN;
                head.pad(len)
            }
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const N: usize> Default for Put<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What `st_blksize` and STATFS say.
pub const BLOCK: u32 = 4096;
