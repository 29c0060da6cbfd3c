// SPDX-License-Identifier: Apache-2.0
//! The process's streams: what the agent holds of them, and how they are read and written without ever waiting.

use crate::link::Outbox;
use isopod_protocol::StreamId;
use isopod_protocol::frame::{MAX_DATA, put_eof, put_window};
use isopod_protocol::window::{ReceiveWindow, SendWindow, WindowError};
use rustix::io::{Errno, ReadWriteFlags, ioctl_fionbio, ioctl_fionread, preadv2, pwritev2, read, write};
use std::io::{IoSlice, IoSliceMut};
use std::mem::take;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// From here on it is cheaper to leave the bytes in the kernel, at the price of two more system calls.
const BULK: usize = 16 * 1024;
/// `preadv2` and `pwritev2` of what has no position.
const NO_OFFSET: u64 = u64::MAX;

/// A pipe, which is asked not to wait each time, or a terminal, which was opened so.
#[derive(Debug)]
enum End {
    Pipe {
        fd: OwnedFd,
        /// The kernel takes no `RWF_NOWAIT` for a pipe once something was spliced, so then it is made non-blocking.
        spliced: bool,
    },
    Terminal(Rc<OwnedFd>),
}

impl End {
    fn pipe(fd: OwnedFd) -> Self {
        Self::Pipe { fd, spliced: false }
    }

    fn read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Pipe { fd, spliced: false } => {
                preadv2(fd, &mut [IoSliceMut::new(buf)], NO_OFFSET, ReadWriteFlags::NOWAIT)
            }
            _ => read(self, buf),
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Pipe { fd, spliced: false } => {
                pwritev2(fd, &[IoSlice::new(bytes)], NO_OFFSET, ReadWriteFlags::NOWAIT)
            }
            _ => write(self, bytes),
        }
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pipe { fd, .. } => fd.as_fd(),
            Self::Terminal(fd) => fd.as_fd(),
        }
    }
}

/// What goes to the process: written at once, or kept until it reads; at most a window of it.
#[derive(Debug)]
pub(crate) struct Input {
    end: Option<End>,
    kept: Vec<u8>,
    window: ReceiveWindow,
    /// The host has said that this is all.
    ended: bool,
}

impl Input {
    /// Takes everything and keeps nothing.
    pub(crate) fn none() -> Self {
        Self { end: None, kept: Vec::new(), window: ReceiveWindow::default(), ended: false }
    }

    pub(crate) fn pipe(fd: OwnedFd) -> Self {
        Self { end: Some(End::pipe(fd)), ..Self::none() }
    }

    pub(crate) fn terminal(master: Rc<OwnedFd>) -> Self {
        Self { end: Some(End::Terminal(master)), ..Self::none() }
    }

    /// What to watch, and whether for room (else only for the reader's leaving).
    pub(crate) fn watched(&self) -> Option<(BorrowedFd<'_>, bool)> {
        match &self.end {
            Some(end @ End::Pipe { .. }) => Some((end.as_fd(), !self.kept.is_empty())),
            Some(end @ End::Terminal(_)) if !self.kept.is_empty() => Some((end.as_fd(), true)),
            _ => None,
        }
    }

    pub(crate) fn data(&mut self, bytes: &[u8], out: &mut Outbox) -> Result<(), WindowError> {
        self.window.received(bytes.len())?;
        let written = if self.kept.is_empty() { self.try_write(bytes, out) } else { 0 };
        self.kept.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// There may be room, or nobody left to read.
    pub(crate) fn go_on(&mut self, out: &mut Outbox) {
        if !self.kept.is_empty() {
            let kept = take(&mut self.kept);
            let written = self.try_write(&kept, out);
            self.kept = kept;
            self.kept.drain(..written);
        }
        if self.ended && self.kept.is_empty() {
            self.end = None;
        }
    }

    /// Bytes that the process has not taken yet.
    pub(crate) fn kept(&self) -> u32 {
        u32::try_from(self.kept.len()).unwrap_or(u32::MAX)
    }

    /// Another host writes from here on.
    pub(crate) fn start_anew(&mut self) {
        self.window = ReceiveWindow::behind(self.kept());
    }

    /// The host has no more. The process sees the end once it has read everything; a terminal has no end.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        if self.kept.is_empty() {
            self.end = None;
        }
    }

    /// The process takes no more: what comes is dropped. The host is told, once.
    pub(crate) fn refuse(&mut self, out: &mut Outbox) {
        if self.end.take().is_some() && !self.ended {
            out.put(|buf| put_eof(buf, StreamId::STDIN));
        }
        let kept = self.kept.len();
        self.kept = Vec::new();
        self.pass(kept, out);
    }

    /// The process is gone: as `refuse`, but there is nothing to say about it.
    pub(crate) fn abandon(&mut self, out: &mut Outbox) {
        self.ended = true;
        self.refuse(out);
    }

    /// How many of these need not be kept; the host is granted as many, by and by.
    fn try_write(&mut self, bytes: &[u8], out: &mut Outbox) -> usize {
        let Some(end) = &self.end else {
            self.pass(bytes.len(), out);
            return bytes.len();
        };
        match end.write(bytes) {
            Ok(written) => {
                self.pass(written, out);
                written
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                self.refuse(out);
                self.pass(bytes.len(), out);
                bytes.len()
            }
        }
    }

    fn pass(&mut self, bytes: usize, out: &mut Outbox) {
        if let Some(grant) = self.window.consumed(bytes) {
            out.put(|buf| put_window(buf, StreamId::STDIN, grant));
        }
    }
}

/// How far an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// The host wants no more of it, but promised bytes may still have to come out of it.
    Refused,
    Ended,
}

/// What comes from the process.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) id: StreamId,
    /// Closed when the host refuses it; otherwise by the machine's end only: not worth a system call.
    end: Option<End>,
    flow: Flow,
    pub(crate) window: SendWindow,
    /// The last piece was large, so the next may be.
    bulk: bool,
}

impl Output {
    pub(crate) fn pipe(id: StreamId, fd: OwnedFd) -> Self {
        Self { id, end: Some(End::pipe(fd)), flow: Flow::Open, window: SendWindow::default(), bulk: false }
    }

    pub(crate) fn terminal(master: Rc<OwnedFd>) -> Self {
        Self {
            id: StreamId::STDOUT,
            end: Some(End::Terminal(master)),
            flow: Flow::Open,
            window: SendWindow::default(),
            bulk: false,
        }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.flow != Flow::Open
    }

    /// Whether it is to be read now, if the host has room for more.
    pub(crate) fn wants(&self) -> bool {
        self.flow == Flow::Open && self.window.room() > 0
    }

    /// The host wants no more of it. A process that writes on gets EPIPE, once what was promised has been sent.
    pub(crate) fn refuse(&mut self) {
        if self.flow == Flow::Open {
            self.flow = Flow::Refused;
        }
    }

    /// Closes what was refused, unless the outbox still has to take promised bytes from it.
    pub(crate) fn let_go(&mut self, promised: Option<StreamId>) {
        if self.flow == Flow::Refused && promised != Some(self.id) {
            self.end = None;
            self.flow = Flow::Ended;
        }
    }

    /// Moves one piece into the outbox, which has room for it. `draining`: the process is gone, so what a pipe does not
    /// have now it will never have; a terminal says so itself, once the kernel has passed on what was written to it.
    pub(crate) fn pump(&mut self, out: &mut Outbox, draining: bool) {
        let most = self.window.room().min(MAX_DATA);
        if self.bulk && self.leave_in_kernel(most, out) {
            return;
        }
        let Some(end) = &self.end else { return };
        match end.read(&mut out.space()[..most]) {
            Ok(0) => self.flow = Flow::Ended,
            Ok(n) => {
                self.window.take(n);
                self.bulk = n >= BULK && self.is_pipe();
                out.filled(self.id, n);
            }
            Err(Errno::AGAIN | Errno::INTR) if !(draining && self.is_pipe()) => {}
            // A terminal that everybody has closed says EIO.
            Err(_) => self.flow = Flow::Ended,
        }
    }

    pub(crate) fn is_pipe(&self) -> bool {
        !matches!(self.end, Some(End::Terminal(_)))
    }

    /// Promises what the pipe holds, to be spliced from it; false if it holds too little for that.
    fn leave_in_kernel(&mut self, most: usize, out: &mut Outbox) -> bool {
        let held = self.end.as_ref().map_or(0, |end| ioctl_fionread(end).unwrap_or(0));
        let n = usize::try_from(held).unwrap_or(usize::MAX).min(most);
        self.bulk = n >= BULK && self.may_splice() && out.promise(self.id, n);
        if self.bulk {
            self.window.take(n);
        }
        self.bulk
    }

    fn may_splice(&mut self) -> bool {
        if let Some(End::Pipe { spliced, fd }) = &mut self.end {
            *spliced = *spliced || ioctl_fionbio(fd, true).is_ok();
            return *spliced;
        }
        false
    }
}

#[cfg(test)]
mod tests;
