// SPDX-License-Identifier: Apache-2.0
//! One guest's session with a file system.
//!
//! ```text
//!               INIT                        any number of requests; INIT again negotiates again,
//!    fresh ───────────────► initialised     and is harmless: a session holds nothing but what was negotiated
//!      ▲  all else: EIO         │
//!      └─── DESTROY, reset ─────┘
//! ```
//! The guest's kernel may go on with another server than the one it negotiated with, of the same files: `session` is
//! all that one has to know, and `resume` tells it.
//!
//! What is asked of the guest's kernel aims at few requests and few of its instructions: names, attributes, link targets
//! and the absence of a name are good for ever; OPEN, OPENDIR and FLUSH are answered ENOSYS, after which it does not send
//! them, as is GETXATTR where no file has an attribute; READDIRPLUS where a listing is followed by look-ups (`AUTO`), so that a plain listing does not make an
//! inode of each name.

use crate::abi::{self, DIRENT_LEN, ENTRY_LEN, OUT_HEADER_LEN, Put, fopen, init};
use crate::counters::Counters;
use crate::filesystem::{DirEntry, FileSystem};
use crate::reply::{Body, Reply};
use crate::request::{Header, NAME_MAX, Request};
use rustix::io::Errno;
use std::sync::Arc;

/// Longest request that is served; the longest Linux sends of those is an attribute's name. One cut here is refused, as
/// it would be whole.
pub const MAX_REQUEST: usize = 4096;

/// Pages of one READ: 1 MiB, or what the request queue has descriptors for.
const MAX_PAGES: u16 = 256;
/// What a request for contents or names gets at most. A chain can have 4 GiB of room, over and over the same pages of
/// the guest's: filling it would take seconds, in which its device can be neither reset nor paused.
const MOST: usize = MAX_PAGES as usize * abi::BLOCK as usize;
/// What the kernel reads around a page fault, at most. Every page of it costs the kernel some 700 instructions, used or
/// not, and every request some 10 000.
const READAHEAD: u32 = 64 * 1024;
/// Reads under way at once before the guest's kernel queues them itself.
const MAX_BACKGROUND: u16 = 64;
const CONGESTION: u16 = 48;

/// What is wanted if the kernel has it.
const WANTED: u32 = init::ASYNC_READ
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::NO_OPEN_SUPPORT
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::CACHE_SYMLINKS
    | init::NO_OPENDIR_SUPPORT
    | init::EXPLICIT_INVAL_DATA;

#[derive(Debug)]
pub struct Server {
    files: Box<dyn FileSystem>,
    /// The flags agreed on, once INIT was.
    session: Option<u32>,
    counters: Arc<Counters>,
}

impl Server {
    pub fn new(files: impl FileSystem + 'static) -> Self {
        Self { files: Box::new(files), session: None, counters: Arc::default() }
    }

    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The guest's kernel is gone, and with it what was negotiated.
    pub fn reset(&mut self) {
        self.session = None;
    }

    /// The flags agreed on, if INIT was.
    pub fn session(&self) -> Option<u32> {
        self.session
    }

    /// Goes on with what another server agreed on; gives back the flags that this one never would.
    pub fn resume(&mut self, session: Option<u32>) -> Result<(), u32> {
        let unknown = session.unwrap_or_default() & !WANTED;
        if unknown != 0 {
            return Err(unknown);
        }
        self.session = session;
        Ok(())
    }

    /// Answers one request, and gives the length of the answer; 0 if there is to be none, or no room for one.
    pub fn handle(&mut self, request: &[u8], reply: &mut dyn Reply) -> usize {
        let Some(header) = Header::parse(request) else {
            return 0;
        };
        self.counters.request(header.opcode);
        let done = match Request::parse(&header, request) {
            Ok(Request::Silent) => return 0,
            _ if reply.room() < OUT_HEADER_LEN => return 0,
            Ok(request) => self.answer(header.node, request, Body::new(reply, OUT_HEADER_LEN)),
            Err(_) if self.session.is_none() => Err(Errno::IO),
            Err(errno) => Err(errno),
        };
        let (len, error) = match done {
            Ok(body) => (OUT_HEADER_LEN + body, 0),
            Err(errno) => {
                self.counters.error();
                (OUT_HEADER_LEN, -errno.raw_os_error())
            }
        };
        let len_field = u32::try_from(len).unwrap_or(u32::MAX);
        let head = Put::<OUT_HEADER_LEN>::new().u32(len_field).i32(error).u64(header.unique);
        reply.put(0, head.as_bytes());
        len
    }

    /// Gives the length of the body.
    fn answer(&mut self, node: u64, request: Request<'_>, body: Body<'_>) -> Result<usize, Errno> {
        if let Request::Init { major, minor, readahead, flags } = request {
            return self.init(Kernel { major, minor, readahead, flags }, body);
        }
        let agreed = self.session.ok_or(Errno::IO)?;
        match request {
            Request::Init { .. } | Request::Silent => Ok(0),
            Request::Destroy => {
                self.session = None;
                Ok(0)
            }
            Request::Release => Ok(0),
            Request::Lookup { name } => {
                let found = self.files.lookup(node, name)?;
                finish(body, Put::<ENTRY_LEN>::new().entry(found.as_ref()).as_bytes())
            }
            Request::GetAttr => {
                let attributes = self.files.attributes(node)?;
                let out = Put::<{ 16 + abi::ATTR_LEN }>::new().u64(abi::FOREVER).u64(0).attr(&attributes);
                finish(body, out.as_bytes())
            }
            Request::ReadLink => finish(body, self.files.link_target(node)?),
            Request::Open => self.open(node, agreed & init::NO_OPEN_SUPPORT, fopen::KEEP_CACHE, body),
            Request::OpenDir => {
                let flags = fopen::KEEP_CACHE | fopen::CACHE_DIR;
                self.open(node, agreed & init::NO_OPENDIR_SUPPORT, flags, body)
            }
            Request::Read { offset, size } => self.read(node, offset, size, body),
            Request::ReadDir { plus: true, .. } if agreed & init::DO_READDIRPLUS == 0 => Err(Errno::NOSYS),
            Request::ReadDir { offset, size, plus } => {
                self.read_dir(node, offset, Listing { size, plus }, body)
            }
            Request::Seek { offset, to } => {
                let offset = self.files.seek(node, offset, to)?;
                finish(body, &offset.to_le_bytes())
            }
            Request::StatFs => self.stat_fs(body),
            Request::GetXattr { name, size } => sized(body, size, self.files.xattr(node, name)?),
            Request::ListXattr { size } => {
                let mut names = Vec::new();
                self.files.xattr_names(node, &mut |name| {
                    names.extend_from_slice(name);
                    names.push(0);
                })?;
                sized(body, size, &names)
            }
        }
    }

    fn init(&mut self, kernel: Kernel, body: Body<'_>) -> Result<usize, Errno> {
        let out = Put::<64>::new().u32(abi::VERSION_MAJOR);
        if kernel.major > abi::VERSION_MAJOR {
            // It will ask again with ours.
            return finish(body, out.u32(abi::VERSION_MINOR).pad(64).as_bytes());
        }
        if kernel.major < abi::VERSION_MAJOR || kernel.minor < abi::VERSION_MINOR_MIN {
            return Err(Errno::PROTO);
        }
        let agreed = kernel.flags & WANTED;
        let out = out
            .u32(abi::VERSION_MINOR.min(kernel.minor))
            .u32(kernel.readahead.min(READAHEAD))
            .u32(agreed)
            .u16(MAX_BACKGROUND)
            .u16(CONGESTION)
            .u32(abi::BLOCK)
            .u32(1)
            .u16(MAX_PAGES)
            .pad(64);
        let len = finish(body, out.as_bytes())?;
        self.session = Some(agreed);
        Ok(len)
    }

    /// A kernel that can do without hears so; another gets a handle that means nothing.
    fn open(&self, node: u64, can_do_without: u32, flags: u32, body: Body<'_>) -> Result<usize, Errno> {
        if can_do_without != 0 {
            return Err(Errno::NOSYS);
        }
        self.files.attributes(node)?;
        finish(body, Put::<16>::new().u64(0).u32(flags).u32(0).as_bytes())
    }

    fn read(&self, node: u64, offset: u64, size: u32, mut body: Body<'_>) -> Result<usize, Errno> {
        let len = wide(size).min(body.room()).min(MOST);
        let read = self.files.read(node, offset, len, &mut body)?;
        self.counters.read(read);
        Ok(read)
    }

    fn read_dir(&self, node: u64, offset: u64, how: Listing, mut body: Body<'_>) -> Result<usize, Errno> {
        let room = wide(how.size).min(body.room()).min(MOST);
        let (mut len, mut position) = (0, offset);
        while let Some(entry) = self.files.entry(node, position)? {
            let record = self.dirent(&entry, position, how.plus)?;
            let bytes = record.as_bytes();
            if len + bytes.len() > room {
                // A kernel that has no room for even one is told so, or it would take this for the end.
                return if len == 0 { Err(Errno::INVAL) } else { Ok(len) };
            }
            body.put(len, bytes);
            len += bytes.len();
            position += 1;
        }
        Ok(len)
    }

    /// `struct fuse_dirent` or `fuse_direntplus`. `.` and `..` carry no attributes: the kernel has them.
    fn dirent(&self, entry: &DirEntry<'_>, position: u64, plus: bool) -> Result<Put<DIRENT_RECORD>, Errno> {
        let name_len = u32::try_from(entry.name.len()).map_err(|_| Errno::IO)?;
        if wide(name_len) > NAME_MAX {
            return Err(Errno::IO);
        }
        let mut record = Put::new();
        if plus {
            let attributes = if position < 2 { None } else { self.files.attributes(entry.node).ok() };
            record = record.entry(attributes.as_ref());
        }
        let record = record.u64(entry.node).u64(position + 1).u32(name_len).u32(entry.kind).raw(entry.name);
        let len = record.as_bytes().len().next_multiple_of(8);
        Ok(record.pad(len))
    }

    fn stat_fs(&self, body: Body<'_>) -> Result<usize, Errno> {
        let totals = self.files.totals();
        let blocks = totals.bytes.div_ceil(u64::from(abi::BLOCK));
        let name_max = u32::try_from(NAME_MAX).unwrap_or(u32::MAX);
        let counts = Put::<80>::new().u64(blocks).u64(0).u64(0).u64(totals.files).u64(0);
        finish(body, counts.u32(abi::BLOCK).u32(name_max).u32(abi::BLOCK).pad(80).as_bytes())
    }
}

/// What INIT says.
struct Kernel {
    major: u32,
    minor: u32,
    readahead: u32,
    flags: u32,
}

#[derive(Clone, Copy)]
struct Listing {
    size: u32,
    plus: bool,
}

/// Longest record of a listing.
const DIRENT_RECORD: usize = (ENTRY_LEN + DIRENT_LEN + NAME_MAX).next_multiple_of(8);

/// A body that is these bytes, if there is room for them.
fn finish(mut body: Body<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    if body.room() < bytes.len() {
        return Err(Errno::INVAL);
    }
    body.put(0, bytes);
    Ok(bytes.len())
}

/// An attribute's answer: its size to those who ask for 0 bytes, itself to those who have room.
fn sized(body: Body<'_>, size: u32, value: &[u8]) -> Result<usize, Errno> {
    let len = u32::try_from(value.len()).map_err(|_| Errno::IO)?;
    match size {
        0 => finish(body, Put::<8>::new().u32(len).u32(0).as_bytes()),
        _ if len > size => Err(Errno::RANGE),
        _ => finish(body, value),
    }
}

fn wide(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
