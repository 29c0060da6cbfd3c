// SPDX-License-Identifier: Apache-2.0
//! Reading tar archives, as hostile as they come.
//!
//! No crate gives everything an image needs (attributes of folders, sparse files of all four kinds, nanoseconds,
//! numbers of any size), so the blocks are read here: ustar, GNU (long names, old sparse, base-256 numbers) and PAX.
//! Where formats leave room, this reads as Go's `archive/tar` does, because that is what images are made and unpacked
//! with. An archive is only ever read forwards, and one entry's headers are all that is kept of it.

mod header;
mod pack;
mod pax;
mod sparse;
#[cfg(test)]
pub(crate) mod write;

use crate::limits::HEADER_MAX;
use header::{BLOCK, Block};
use isopod_index::Time;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use thiserror::Error;

pub(crate) use pack::Packer;

#[derive(Debug, Error)]
pub(crate) enum TarError {
    #[error("the archive is cut short")]
    Truncated,
    #[error("a header whose {0} is malformed")]
    Header(&'static str),
    #[error("a header with a wrong checksum")]
    Checksum,
    #[error("an extended header of {0} bytes, more than the {HEADER_MAX} allowed")]
    HeaderTooLarge(u64),
    #[error("an extended header with a malformed record{}", .0.as_ref().map(|key| format!(" `{key}`")).unwrap_or_default())]
    Record(Option<String>),
    #[error("a name with a NUL")]
    NulInName,
    #[error("a sparse file whose map is {0}")]
    Sparse(&'static str),
    #[error("an entry of unknown type {:?}", char::from(*.0))]
    Type(u8),
    #[error("{0} bytes after the archive's end")]
    Trailer(&'static str),
    #[error("cannot read the archive")]
    Io(#[source] io::Error),
}

impl From<io::Error> for TarError {
    fn from(e: io::Error) -> Self {
        if e.kind() == ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Io(e) }
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Folder,
    Fifo,
}

/// One entry, all its headers put together.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Type,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a file, its holes included.
    pub(crate) size: u64,
    /// Pieces of a sparse file as offset and length, in order; their bytes follow each other in the archive.
    pub(crate) pieces: Option<Vec<(u64, u64)>>,
}

/// An archive being read.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    inner: R,
    /// Bytes of the current entry not read yet, and the padding after them.
    left: u64,
    padding: u64,
    /// Bytes read from `inner`.
    position: u64,
    /// The last name seen, and whether what is being read now is that entry or comes after it: for messages.
    last: (Vec<u8>, bool),
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, position: 0, last: (Vec::new(), false) }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The entry an error of `next_entry` is about, or (false) the one before it.
    pub(crate) fn last_name(&self) -> (&[u8], bool) {
        (&self.last.0, self.last.1)
    }

    /// Bytes of the current entry's contents in the archive that were not read.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; what was not read of the last one is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        self.last.1 = false;
        let mut extended = pax::Records::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(block) = self.header()? else {
                let dangling = !extended.is_empty() || long_name.is_some() || long_link.is_some();
                return if dangling { Err(TarError::Truncated) } else { Ok(None) };
            };
            match block.typeflag() {
                b'x' | b'X' => extended = pax::Records::parse(&self.extension(&block)?)?,
                b'g' => drop(self.extension(&block)?),
                b'L' => long_name = Some(header::until_nul(self.extension(&block)?)?),
                b'K' => long_link = Some(header::until_nul(self.extension(&block)?)?),
                _ => {
                    let name = long_name.unwrap_or_else(|| block.name());
                    self.last = (name.clone(), true);
                    let mut entry = block.entry()?;
                    entry.name = name;
                    entry.link = long_link.unwrap_or(entry.link);
                    let mut stored = block.size()?;
                    extended.apply(&mut entry, &mut stored)?;
                    return self.begin(entry, stored, &block, &extended).map(Some);
                }
            }
        }
    }

    /// Sets up the entry's contents and says what they are.
    fn begin(
        &mut self,
        mut entry: Entry,
        stored: u64,
        block: &Block,
        extended: &pax::Records,
    ) -> Result<Entry, TarError> {
        let legacy_folder = entry.kind == Type::File && entry.name.ends_with(b"/");
        if legacy_folder {
            entry.kind = Type::Folder;
        }
        self.last.0.clone_from(&entry.name);
        if entry.kind != Type::File {
            // Other types have no contents, whatever size they claim.
            entry.size = 0;
            return Ok(entry);
        }
        self.left = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
        entry.size = stored;
        sparse::read(self, &mut entry, block, extended)?;
        self.last.0.clone_from(&entry.name);
        Ok(entry)
    }

    /// Reads all of the entry's contents that fits, or less at their end.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let want = usize::try_from(self.left).map_or(buf.len(), |left| buf.len().min(left));
        self.read_exact(&mut buf[..want])?;
        self.left -= want as u64;
        Ok(want)
    }

    /// What follows the archive's end: nothing but a little padding.
    pub(crate) fn finish(&mut self, limit: u64) -> Result<(), TarError> {
        let mut buf = [0; 8192];
        let mut seen = 0;
        loop {
            let n = match self.inner.read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            seen += n as u64;
            if seen > limit {
                return Err(TarError::Trailer("too many"));
            }
            if buf[..n].iter().any(|b| *b != 0) {
                return Err(TarError::Trailer("other than zero"));
            }
        }
    }

    /// A header block; `None` at the end, which is two blocks of zeros or the end of the stream.
    fn header(&mut self) -> Result<Option<Block>, TarError> {
        let Some(block) = self.block_or_end()? else {
            return Ok(None);
        };
        if block.is_zero() {
            return match self.block_or_end()? {
                Some(second) if !second.is_zero() => Err(TarError::Header("end")),
                _ => Ok(None),
            };
        }
        block.check()?;
        Ok(Some(block))
    }

    fn block_or_end(&mut self) -> Result<Option<Block>, TarError> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            match self.inner.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(n) => have += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.position += BLOCK as u64;
        Ok(Some(Block(block)))
    }

    /// The contents of a header that extends the next one.
    fn extension(&mut self, block: &Block) -> Result<Vec<u8>, TarError> {
        let size = block.size()?;
        let len = usize::try_from(size).ok().filter(|_| size <= HEADER_MAX);
        let mut bytes = vec![0; len.ok_or(TarError::HeaderTooLarge(size))?];
        self.read_exact(&mut bytes)?;
        self.skip(size.next_multiple_of(BLOCK as u64) - size)?;
        Ok(bytes)
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), TarError> {
        self.inner.read_exact(buf)?;
        self.position += buf.len() as u64;
        Ok(())
    }

    fn skip(&mut self, n: u64) -> Result<(), TarError> {
        let copied = io::copy(&mut self.inner.by_ref().take(n), &mut io::sink())?;
        self.position += copied;
        if copied == n { Ok(()) } else { Err(TarError::Truncated) }
    }
}

#[cfg(test)]
mod tests;
