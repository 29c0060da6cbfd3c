// SPDX-License-Identifier: Apache-2.0
//! A layer's data file: the contents of its regular files, one after the other, in one sequential pass.
//!
//! A file of a page or more begins on a page, so that pages of the guest's cache are pages of the host's. Zeros are not
//! written: each `HOLE` bytes of a file that are all zero become a gap between its extents. A finer grain would
//! save little and split reads into pieces.
//!
//! Data grows in some proportion to what was downloaded, or somebody means to fill the disk; zeros are free.

use crate::compress::Meter;
use crate::limits::{RATIO_FROM, RATIO_MAX};
use crate::tar::{Archive, Entry, TarError};
use isopod_index::Extent;
use std::io::{Error as IoError, Read, Write};
use thiserror::Error;

/// Size and alignment, within a file, of a hole.
const HOLE: usize = 64 << 10;
const PAGE: u64 = 4096;
static ZEROS: [u8; HOLE] = [0; HOLE];

#[derive(Debug, Error)]
pub(crate) enum DataError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("{data} bytes of data from {compressed} compressed: a decompression bomb")]
    Bomb { data: u64, compressed: u64 },
    #[error("cannot write the data file")]
    Write(#[source] IoError),
}

/// Writes a data file.
#[derive(Debug)]
pub(crate) struct Data<W> {
    out: W,
    end: u64,
    chunk: Vec<u8>,
    compressed: Meter,
}

impl<W: Write> Data<W> {
    /// `compressed` says how much was downloaded for what is written.
    pub(crate) fn new(out: W, compressed: Meter) -> Self {
        Self { out, end: 0, chunk: vec![0; HOLE], compressed }
    }

    pub(crate) fn into_inner(self) -> W {
        self.out
    }

    /// Takes the contents of an entry from its archive, and says where they went.
    pub(crate) fn take<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        entry: &Entry,
    ) -> Result<Vec<Extent>, DataError> {
        let whole = [(0, entry.size)];
        let pieces = entry.pieces.as_deref().unwrap_or(&whole);
        if entry.size >= PAGE {
            self.align()?;
        }
        let mut extents = Vec::new();
        let mut start = 0;
        // The piece being read, and how much of it has been.
        let (mut n, mut done) = (0, 0);
        while let Some((offset, _)) = pieces.get(n).filter(|(_, len)| *len > 0) {
            // A piece far ahead: what lies between is one hole.
            let next = offset + done;
            start = next.max(start) / HOLE as u64 * HOLE as u64;
            let len = usize::try_from(entry.size - start).map_or(HOLE, |rest| rest.min(HOLE));
            let end = start + len as u64;
            self.chunk[..len].fill(0);
            while let Some((offset, piece)) = pieces.get(n).filter(|(offset, _)| offset + done < end) {
                let from = offset + done;
                let take = (piece - done).min(end - from);
                let at = usize::try_from(from - start).unwrap_or(HOLE);
                read_exact(archive, &mut self.chunk[at..at + usize::try_from(take).unwrap_or(0)])?;
                done += take;
                if done == *piece {
                    (n, done) = (n + 1, 0);
                }
            }
            self.put(start, len, &mut extents)?;
            start = end;
        }
        Ok(extents)
    }

    /// Writes the chunk unless it is zero.
    fn put(&mut self, start: u64, len: usize, extents: &mut Vec<Extent>) -> Result<(), DataError> {
        let chunk = &self.chunk[..len];
        if chunk == &ZEROS[..len] {
            return Ok(());
        }
        let compressed = self.compressed.count();
        if self.end > RATIO_FROM && self.end / RATIO_MAX > compressed {
            return Err(DataError::Bomb { data: self.end, compressed });
        }
        self.out.write_all(chunk).map_err(DataError::Write)?;
        let (file_offset, len, data_offset) = (start, len as u64, self.end);
        self.end += len;
        match extents.last_mut() {
            Some(last) if last.file_offset + last.len == file_offset => last.len += len,
            _ => extents.push(Extent { file_offset, len, layer: 0, data_offset }),
        }
        Ok(())
    }

    fn align(&mut self) -> Result<(), DataError> {
        let padding = self.end.next_multiple_of(PAGE) - self.end;
        self.end += padding;
        self.out.write_all(&ZEROS[..usize::try_from(padding).unwrap_or(0)]).map_err(DataError::Write)
    }
}

fn read_exact<R: Read>(archive: &mut Archive<R>, buf: &mut [u8]) -> Result<(), DataError> {
    if archive.read(buf)? == buf.len() { Ok(()) } else { Err(TarError::Truncated.into()) }
}
