// SPDX-License-Identifier: Apache-2.0
//! Where an answer goes: the guest's buffers, or a vector in tests.

use std::fmt::{self, Debug, Formatter};
use std::fs::File;
use std::io;

/// Room for an answer, written at any place in any order. Writes stop silently where the room ends, so whoever writes asks
/// for the room first.
pub trait Reply {
    /// Bytes of room, for the header and all.
    fn room(&self) -> usize;

    fn put(&mut self, at: usize, bytes: &[u8]);

    fn zero(&mut self, at: usize, len: usize);

    /// Reads up to `len` bytes of `file` from `offset` on to `at`, without a copy in between if it can; gives how
    /// many, which is 0 only at the file's end.
    fn fill(&mut self, at: usize, len: usize, file: &File, offset: u64) -> io::Result<usize>;
}

/// The part of a reply behind its header.
pub struct Body<'r> {
    reply: &'r mut dyn Reply,
    start: usize,
}

impl<'r> Body<'r> {
    pub(crate) fn new(reply: &'r mut dyn Reply, start: usize) -> Self {
        Self { reply, start }
    }

    pub fn room(&self) -> usize {
        self.reply.room().saturating_sub(self.start)
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.reply.put(self.start + at, bytes);
    }

    pub fn zero(&mut self, at: usize, len: usize) {
        self.reply.zero(self.start + at, len);
    }

    pub fn fill(&mut self, at: usize, len: usize, file: &File, offset: u64) -> io::Result<usize> {
        self.reply.fill(self.start + at, len, file, offset)
    }
}

impl Debug for Body<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("start", &self.start).finish_non_exhaustive()
    }
}
