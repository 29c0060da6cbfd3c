// SPDX-License-Identifier: Apache-2.0
//! A local output: what the process wrote, on its way to our stdout or stderr.
//!
//! The loop must never wait for whoever reads it. A pipe or terminal is opened once more for that, as a description of
//! our own that does not wait: ours is shared with whoever started us, and stays as it is. Where that cannot be had
//! (a terminal of another user's), it gets pieces that a pipe takes at once when it polls as writable.

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, retry_on_intr, write};
use rustix::net::{SendFlags, send};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

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

#[derive(Debug)]
enum Kind {
    File,
    Socket,
    /// A pipe or a terminal, and our own description of it.
    Own(OwnedFd),
    Shared,
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
            _ => own_description(fd).map_or(Kind::Shared, Kind::Own),
        };
        Self { fd, kind, held: Vec::new(), start: 0, broken: false }
    }

    /// Takes bytes in; false if they are dropped because nobody will have them. How many are held is up to the window.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        if !self.broken {
            self.held.drain(..self.start);
            self.start = 0;
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
            Kind::Shared => &rest[..rest.len().min(PIPE_BUF)],
            _ => rest,
        };
        let result = retry_on_intr(|| match &self.kind {
            Kind::Socket => send(self.fd, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Kind::Own(own) => write(own, piece),
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
                (self.broken, self.held, self.start) = (true, Vec::new(), 0);
                Wrote::Broken(dropped)
            }
        }
    }
}

/// What to poll.
impl AsFd for Sink<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Own(own) => own.as_fd(),
            _ => self.fd,
        }
    }
}

/// The same pipe, terminal or device, opened for writing without waiting. (A file would be opened at its beginning.)
pub(crate) fn own_description(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    if FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fcntl_getfl;
    use rustix::io::read;
    use rustix::pipe::pipe;

    #[test]
    fn what_was_written_is_not_kept_though_the_sink_is_never_empty() {
        let (reader, writer) = pipe().unwrap();
        let mut sink = Sink::new(writer.as_fd());
        let mut room = [0; 65536];
        sink.push(&[7; 150_000]);
        for _ in 0..50 {
            let Wrote::Bytes(n) = sink.write() else { panic!("the reader is there") };
            read(&reader, &mut room).unwrap();
            assert!(sink.push(&room[..n]) && sink.held.len() < 200_000);
        }
    }

    #[test]
    fn two_sinks_of_one_full_pipe_do_not_wait() {
        let (_reader, writer) = pipe().unwrap();
        let mut sinks = [Sink::new(writer.as_fd()), Sink::new(writer.as_fd())];
        for sink in &mut sinks {
            sink.push(&[7; 200_000]);
        }
        let written = |wrote| if let Wrote::Bytes(n) = wrote { n } else { 0 };
        let all: usize = (0..20).map(|n| written(sinks[n % 2].write())).sum();
        assert_eq!(all, 65536, "what a pipe holds");
        // Ours is as it was: a write to it would wait.
        assert!(!fcntl_getfl(&writer).unwrap().contains(OFlags::NONBLOCK));
    }
}
