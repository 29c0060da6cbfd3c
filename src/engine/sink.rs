// SPDX-License-Identifier: Apache-2.0
//! A local output: what the process wrote, on its way to our stdout or stderr.
//!
//! The descriptor is shared with whoever started us, so it is never made non-blocking. A pipe or terminal that polls
//! as writable takes `PIPE_BUF` bytes without waiting, a socket can be told not to wait, and a file never waits long.

use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, retry_on_intr, write};
use rustix::net::{SendFlags, send};
use std::os::fd::{AsFd, BorrowedFd};

/// What a pipe that polls as writable takes at once (pipe(7)).
const PIPE_BUF: usize = 4096;

#[derive(Debug)]
pub(crate) struct Sink<'a> {
    fd: BorrowedFd<'a>,
    kind: Kind,
    held: Vec<u8>,
    start: usize,
    broken: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    File,
    Socket,
    Other,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    Bytes(usize),
    /// Nobody will take any more; so many bytes were held and are dropped.
    Broken(usize),
}

impl<'a> Sink<'a> {
    pub(crate) fn new(fd: BorrowedFd<'a>) -> Self {
        let kind = match fstat(fd).map(|s| FileType::from_raw_mode(s.st_mode)) {
            Ok(FileType::RegularFile) => Kind::File,
            Ok(FileType::Socket) => Kind::Socket,
            _ => Kind::Other,
        };
        Self { fd, kind, held: Vec::new(), start: 0, broken: false }
    }

    /// Takes bytes in; false if they are dropped because nobody will have them. How many are held is up to the window.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        if !self.broken {
            self.held.extend_from_slice(bytes);
        }
        !self.broken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.held.len()
    }

    /// Writes what can be written without waiting, when the descriptor polls as ready.
    pub(crate) fn write(&mut self) -> Wrote {
        let rest = &self.held[self.start..];
        let piece = match self.kind {
            Kind::Other => &rest[..rest.len().min(PIPE_BUF)],
            _ => rest,
        };
        let result = retry_on_intr(|| match self.kind {
            Kind::Socket => send(self.fd, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            _ => write(self.fd, piece),
        });
        match result {
            Ok(n) => {
                self.start += n;
                if self.is_empty() {
                    self.held.clear();
                    self.start = 0;
                }
                Wrote::Bytes(n)
            }
            Err(Errno::AGAIN) => Wrote::Bytes(0),
            Err(_) => {
                let dropped = self.held.len() - self.start;
                *self = Self { broken: true, held: Vec::new(), start: 0, ..*self };
                Wrote::Broken(dropped)
            }
        }
    }
}

impl AsFd for Sink<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd
    }
}
