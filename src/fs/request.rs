// SPDX-License-Identifier: Apache-2.0
//! From a guest's bytes to a request: the door at which everything is checked, once.

use crate::abi::{IN_HEADER_LEN, Take, opcode};
use crate::filesystem::Seek;
use rustix::io::Errno;

/// Longest name of a directory entry, as in Linux.
pub const NAME_MAX: usize = 255;

const O_ACCMODE: u32 = 3;
const O_TRUNC: u32 = 0o1000;
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// What is used of `struct fuse_in_header`. Who asks is not: permissions are the guest kernel's to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub len: u32,
    pub opcode: u32,
    pub unique: u64,
    pub node: u64,
    extensions: u16,
}

impl Header {
    /// `None` if there are not even the bytes of a header, and so nobody to answer.
    pub fn parse(request: &[u8]) -> Option<Self> {
        let mut take = Take(request);
        let (len, opcode, unique, node) = (take.u32()?, take.u32()?, take.u64()?, take.u64()?);
        let (_uid, _gid, _pid, extensions, _padding) =
            (take.u32()?, take.u32()?, take.u32()?, take.u16()?, take.u16()?);
        Some(Self { len, opcode, unique, node, extensions })
    }
}

/// A request whose lengths and names hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    Init {
        major: u32,
        minor: u32,
        readahead: u32,
        flags: u32,
    },
    Destroy,
    /// FORGET, BATCH_FORGET, INTERRUPT: nothing to do, and no answer is expected.
    Silent,
    Lookup {
        name: &'a [u8],
    },
    GetAttr,
    ReadLink,
    Open,
    OpenDir,
    Release,
    Read {
        offset: u64,
        size: u32,
    },
    ReadDir {
        offset: u64,
        size: u32,
        plus: bool,
    },
    Seek {
        offset: u64,
        to: Seek,
    },
    StatFs,
    GetXattr {
        name: &'a [u8],
        size: u32,
    },
    ListXattr {
        size: u32,
    },
}

impl<'a> Request<'a> {
    /// `request` is the whole of what was sent, `header` what was parsed from it.
    pub fn parse(header: &Header, request: &'a [u8]) -> Result<Self, Errno> {
        // To these no answer may go, or always the same one: what else they say does not matter, nor how much of it came.
        if Self::check_opcode(header.opcode)? {
            return Ok(Self::Silent);
        }
        let honest = usize::try_from(header.len) == Ok(request.len()) && header.extensions == 0;
        let body = request.get(IN_HEADER_LEN..).filter(|_| honest).ok_or(Errno::INVAL)?;
        Self::parse_body(header.opcode, body)
    }

    /// Whether the opcode is one without an answer; or why it is none of ours.
    fn check_opcode(code: u32) -> Result<bool, Errno> {
        match code {
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => Ok(true),
            opcode::SETATTR
            | opcode::SYMLINK
            | opcode::MKNOD
            | opcode::MKDIR
            | opcode::UNLINK
            | opcode::RMDIR
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::LINK
            | opcode::WRITE
            | opcode::SETXATTR
            | opcode::REMOVEXATTR
            | opcode::CREATE
            | opcode::TMPFILE
            | opcode::FALLOCATE
            | opcode::COPY_FILE_RANGE => Err(Errno::ROFS),
            // Said once, the kernel does not ask again: it has nothing to flush here.
            opcode::FLUSH => Err(Errno::NOSYS),
            _ => Ok(false),
        }
    }

    fn parse_body(code: u32, body: &'a [u8]) -> Result<Self, Errno> {
        let mut take = Take(body);
        let parsed = match code {
            opcode::INIT => Self::init(&mut take),
            opcode::LOOKUP => return entry_name(body).map(|name| Self::Lookup { name }),
            // An older kernel sends none of its arguments, and nothing here depends on them.
            opcode::GETATTR => return Ok(Self::GetAttr),
            opcode::GETXATTR => return Self::get_xattr(take),
            opcode::DESTROY => Some(Self::Destroy),
            opcode::READLINK => Some(Self::ReadLink),
            opcode::STATFS => Some(Self::StatFs),
            opcode::OPEN => return Self::open(&mut take),
            opcode::OPENDIR => (take.u64().is_some()).then_some(Self::OpenDir),
            opcode::RELEASE | opcode::RELEASEDIR => (take.u64().is_some()).then_some(Self::Release),
            opcode::READ => Self::range(&mut take).map(|(offset, size)| Self::Read { offset, size }),
            opcode::READDIR | opcode::READDIRPLUS => Self::range(&mut take)
                .map(|(offset, size)| Self::ReadDir { offset, size, plus: code == opcode::READDIRPLUS }),
            opcode::LSEEK => Self::seek(&mut take),
            opcode::LISTXATTR => take.u32().map(|size| Self::ListXattr { size }),
            _ => return Err(Errno::NOSYS),
        };
        parsed.ok_or(Errno::INVAL)
    }

    fn init(take: &mut Take<'_>) -> Option<Self> {
        Some(Self::Init {
            major: take.u32()?,
            minor: take.u32()?,
            readahead: take.u32()?,
            flags: take.u32()?,
        })
    }

    fn open(take: &mut Take<'_>) -> Result<Self, Errno> {
        let flags = take.u32().ok_or(Errno::INVAL)?;
        if flags & (O_ACCMODE | O_TRUNC) == 0 { Ok(Self::Open) } else { Err(Errno::ROFS) }
    }

    /// Offset and size of `struct fuse_read_in`.
    fn range(take: &mut Take<'_>) -> Option<(u64, u32)> {
        let (_handle, offset, size) = (take.u64()?, take.u64()?, take.u32()?);
        let (_flags, _owner, _open_flags) = (take.u32()?, take.u64()?, take.u32()?);
        Some((offset, size))
    }

    fn seek(take: &mut Take<'_>) -> Option<Self> {
        let (_handle, offset) = (take.u64()?, take.u64()?);
        let to = match take.u32()? {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return None,
        };
        Some(Self::Seek { offset, to })
    }

    fn get_xattr(mut take: Take<'a>) -> Result<Self, Errno> {
        let (size, _padding) = (take.u32().ok_or(Errno::INVAL)?, take.u32().ok_or(Errno::INVAL)?);
        terminated(take.0).map(|name| Self::GetXattr { name, size })
    }
}

/// The bytes before the one NUL, which must be the last: at least one.
fn terminated(bytes: &[u8]) -> Result<&[u8], Errno> {
    match bytes.split_last() {
        Some((0, name)) if name.is_empty() || name.contains(&0) => Err(Errno::INVAL),
        Some((0, name)) if name.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
        Some((0, name)) => Ok(name),
        _ => Err(Errno::INVAL),
    }
}

/// A name that is one name: no path, and not one that leads elsewhere.
fn entry_name(bytes: &[u8]) -> Result<&[u8], Errno> {
    match terminated(bytes)? {
        b"." | b".." => Err(Errno::INVAL),
        name if name.contains(&b'/') => Err(Errno::INVAL),
        name => Ok(name),
    }
}
