// SPDX-License-Identifier: Apache-2.0
//! Reads an envelope. Everything in it is an allegation until the digests have been compared.

use super::header::{self, Header};
use super::pages::{AT_ONCE, PagesHash, runs};
use super::{Digest, Identity, PAGE, VERSION};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use thiserror::Error;

/// A head of this length, which is more than most have, takes one read.
const FIRST_READ: u64 = 64 << 10;

#[derive(Debug, Error)]
pub enum OpenError {
    #[error("it is neither a template nor a snapshot")]
    NotOurs,
    #[error("it has version {found}; this reads version {VERSION}")]
    Version { found: u32 },
    #[error("it is cut short: it has {have} of {expected} bytes")]
    CutShort { have: u64, expected: u64 },
    #[error("it is longer than it says: it has {have} bytes for {expected}")]
    TooLong { have: u64, expected: u64 },
    #[error("it says to have {what} of {says} bytes; {most} are possible")]
    TooLarge { what: &'static str, says: u64, most: u64 },
    #[error("it says to have {len} bytes of memory at byte {offset}, where none can be")]
    Misplaced { offset: u64, len: u64 },
    #[error("its head is damaged: its SHA-256 is {found}, it says {stated}")]
    Head { found: Digest, stated: Digest },
    #[error("its memory is damaged: its SHA-256 is {found}, it says {stated}")]
    Memory { found: Digest, stated: Digest },
    #[error("its identity makes no sense")]
    Identity(#[source] serde_json::Error),
    #[error("its identity says {mib} MiB of memory, it has {len} bytes")]
    MemoryLen { mib: u32, len: u64 },
    #[error("cannot read it")]
    Read(#[source] io::Error),
}

/// What a file has in it, apart from the memory.
#[derive(Debug, Clone)]
pub struct Envelope {
    pub identity: Identity,
    pub state: Vec<u8>,
    /// Where in the file the memory begins: a multiple of 2 MiB.
    pub memory_offset: u64,
    /// As many bytes as the identity has MiB. The file ends behind them.
    pub memory_len: u64,
    pub memory_digest: Digest,
    /// The head's digest, as [`seal`](super::seal) gave it.
    pub digest: Digest,
    header: Header,
}

/// Reads and checks all but the memory. The file's offset is neither used nor moved.
pub fn open(file: &File) -> Result<Envelope, OpenError> {
    let have = file.metadata().map_err(OpenError::Read)?.len();
    let mut head = vec![0; usize::try_from(have.min(FIRST_READ)).unwrap_or(0)];
    read(file, &mut head, 0)?;
    let header = Header::parse(&head[..head.len().min(header::LEN)], have)?;
    read_rest(file, &mut head, &header)?;
    let (found, stated) = (header::digest(&head), header::stated_digest(&head).ok_or(OpenError::NotOurs)?);
    if found != stated {
        return Err(OpenError::Head { found, stated });
    }
    // Both lengths are in the head that was read: it is at least as long as they say.
    let (json, rest) = head[header::LEN..].split_at(header.identity_len as usize);
    let identity: Identity = serde_json::from_slice(json).map_err(OpenError::Identity)?;
    let Header { memory_offset, memory_len, memory_digest, .. } = header;
    if memory_len != u64::from(identity.memory_mib) << 20 {
        return Err(OpenError::MemoryLen { mib: identity.memory_mib, len: memory_len });
    }
    let state = rest[..header.state_len as usize].to_vec();
    Ok(Envelope { identity, state, memory_offset, memory_len, memory_digest, digest: found, header })
}

/// Makes of what was read first the whole head, and no more than that.
fn read_rest(file: &File, head: &mut Vec<u8>, header: &Header) -> Result<(), OpenError> {
    let done = head.len();
    // At most 17 MiB, and the file has them: both were checked.
    head.resize(usize::try_from(header.head_len()).unwrap_or(done), 0);
    match head.get_mut(done..) {
        Some(rest) => read(file, rest, done as u64),
        None => Ok(()),
    }
}

impl Envelope {
    /// Reads all of the memory that is no hole, and the room before it, and compares its digest.
    ///
    /// It looks for holes with `lseek`, which moves the offset of the open file: nobody may rely on that. Two that
    /// verify at once do not disturb each other.
    pub fn verify_memory(&self, file: &File) -> Result<(), OpenError> {
        self.header.check_file_len(file.metadata().map_err(OpenError::Read)?.len())?;
        let mut hash = PagesHash::default();
        let mut buffer = vec![0; AT_ONCE];
        let (mut at, end) = (self.header.head_len(), self.header.file_len());
        while let Some(data) = next_data(file, at..end).map_err(OpenError::Read)? {
            at = data.start;
            while at < data.end {
                let n = usize::try_from(data.end - at).map_or(AT_ONCE, |left| left.min(AT_ONCE));
                let bytes = &mut buffer[..n];
                read(file, bytes, at)?;
                for run in runs(bytes) {
                    hash.update(at + run.start as u64, &bytes[run]);
                }
                at += n as u64;
            }
        }
        let (found, stated) = (hash.finish(), self.memory_digest);
        if found == stated { Ok(()) } else { Err(OpenError::Memory { found, stated }) }
    }
}

/// The first pages of `within`, which are whole ones, that are no hole.
fn next_data(file: &File, within: Range<u64>) -> io::Result<Option<Range<u64>>> {
    if within.is_empty() {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(within.start)) {
        // A file system may have blocks smaller than a page, and so holes within one.
        Ok(start) => (start - start % PAGE).max(within.start),
        Err(Errno::NXIO) => return Ok(None),
        // One that knows no holes has data only.
        Err(Errno::INVAL) => return Ok(Some(within)),
        Err(error) => return Err(error.into()),
    };
    if start >= within.end {
        return Ok(None);
    }
    // Only a file that is written to while it is read has no end of its data, or one that is not behind the beginning.
    let hole = match seek(file, SeekFrom::Hole(start.max(within.start))) {
        Ok(hole) => hole.max(start + 1),
        Err(Errno::NXIO) => within.end,
        Err(error) => return Err(error.into()),
    };
    Ok(Some(start..hole.next_multiple_of(PAGE).min(within.end)))
}

/// Fills `buffer` from `offset` on, or the file has become shorter.
fn read(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), OpenError> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let have = file.metadata().map_or(0, |metadata| metadata.len());
            OpenError::CutShort { have, expected: offset + buffer.len() as u64 }
        }
        _ => OpenError::Read(error),
    })
}
