// SPDX-License-Identifier: Apache-2.0
//! A connection and the unix socket it leads to: bytes go over here, each copied once.
//!
//! From the guest's memory to the socket and from the socket to the guest's memory; only what the socket does
//! not take at once is held, and that is bounded by the credit the guest has. The socket never blocks us: it
//! is waited for (`Interest`) just when something can be done with it, because a level-triggered wait for
//! what nobody takes is a busy loop.

use super::connection::{Connection, Event, Heard, State};
use super::credit::BUF_ALLOC;
use super::packet::{Header, Op};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};

/// What the socket is to be waited for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// What reading the socket gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// This many bytes for the guest, at least one.
    Bytes(u32),
    /// Nothing now; the socket has to be waited for.
    Nothing,
    /// No more for ever: the connection has moved on and has a word for the guest.
    Ended,
}

#[derive(Debug)]
pub(super) struct Bridge {
    connection: Connection,
    socket: UnixStream,
    /// What the guest sent and the socket did not take yet; as long as the credit says, at most `BUF_ALLOC`.
    held: VecDeque<u8>,
    /// A read may give something: it is worth a try before waiting.
    readable: bool,
}

impl Bridge {
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { connection: Connection::default(), socket, held: VecDeque::new(), readable: true })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.connection.is_idle()
    }

    /// Bytes of the guest's that wait for the socket.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Takes over a connection that held nothing, and brings the socket to where it is.
    pub(super) fn go_on(&mut self, connection: Connection) {
        self.connection = connection;
        self.settle();
    }

    /// Whether there is a connection that could be broken off.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.connection.state(), State::Idle | State::Closed)
    }

    /// A packet of the guest's on this flow, with its payload: `header.len` bytes.
    pub(super) fn hear(&mut self, header: &Header, payload: &[VolatileSlice<'_>]) -> Heard {
        let before = self.connection.state();
        let heard = self.connection.hear(header);
        if heard == Heard::Payload {
            self.take(payload);
        }
        if self.connection.state() != before {
            self.settle();
        }
        heard
    }

    /// The guest broke the rules of the device, not just those of the connection.
    pub(super) fn break_off(&mut self) {
        self.connection.step(Event::Broken);
        self.settle();
    }

    /// Passes a payload on, as far as the socket takes it, and holds the rest.
    fn take(&mut self, payload: &[VolatileSlice<'_>]) {
        for slice in payload {
            let passed = if self.held.is_empty() { self.write_from(slice) } else { 0 };
            if self.connection.state() == State::Closed {
                return;
            }
            if let Ok(rest) = slice.offset(passed) {
                hold(&mut self.held, &rest);
            }
        }
        debug_assert!(u32::try_from(self.held.len()).is_ok_and(|held| held <= BUF_ALLOC));
    }

    /// Writes what the socket takes of a slice of guest memory now.
    fn write_from(&mut self, slice: &VolatileSlice<'_>) -> usize {
        let mut done = 0;
        while done < slice.len() {
            let Ok(rest) = slice.offset(done) else { break };
            match plain((&self.socket).write_volatile(&rest)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed(&error);
                    break;
                }
            }
        }
        self.forwarded(done);
        done
    }

    /// The socket has room again.
    fn flush(&mut self) {
        let had = !self.held.is_empty();
        while !self.held.is_empty() {
            match (&self.socket).write(self.held.as_slices().0) {
                Ok(0) => break,
                Ok(n) => {
                    self.held.drain(..n);
                    self.forwarded(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed(&error);
                    break;
                }
            }
        }
        if had && self.held.is_empty() {
            self.settle();
        }
    }

    fn forwarded(&mut self, n: usize) {
        self.connection.forwarded(u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// An error of the socket's: full is none, anything else says the host's end is gone.
    fn failed(&mut self, error: &io::Error) {
        if error.kind() != ErrorKind::WouldBlock {
            tracing::debug!(%error, "a vsock connection lost its host end");
            self.connection.step(Event::Broken);
            self.settle();
        }
    }

    /// Reads for the guest, straight into its memory. The slices hold no more than `room`.
    pub(super) fn read_into(&mut self, buffer: &mut [VolatileSlice<'_>]) -> Input {
        let mut total = 0;
        for slice in buffer {
            let result = loop {
                match plain((&self.socket).read_volatile(slice)) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    result => break result,
                }
            };
            match result {
                Ok(n) if n > 0 => {
                    total += n;
                    if n < slice.len() {
                        // A stream gives all it has: what comes later is told by the wait.
                        self.readable = false;
                        break;
                    }
                }
                // Whatever it is, it will be the same when it is read by itself.
                _ if total > 0 => break,
                Ok(_) => return self.ended(Event::HostSent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Input::Nothing;
                }
                Err(_) => return self.ended(Event::Broken),
            }
        }
        if total == 0 {
            self.readable = false;
            return Input::Nothing;
        }
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        self.connection.sent(total);
        Input::Bytes(total)
    }

    fn ended(&mut self, event: Event) -> Input {
        self.connection.step(event);
        self.settle();
        Input::Ended
    }

    /// Brings the socket to where the connection is: called when that moved on, and when nothing is held any more.
    fn settle(&mut self) {
        if self.held.is_empty() && matches!(self.connection.state(), State::GuestDone | State::Draining) {
            self.shut(Shutdown::Write);
            self.connection.step(Event::Drained);
        }
        match self.connection.state() {
            State::HostDone | State::Draining => self.shut(Shutdown::Read),
            State::Closed => {
                self.held = VecDeque::new();
                self.shut(Shutdown::Both);
            }
            State::Idle | State::Connected | State::GuestDone => {}
        }
    }

    /// Fails only if the host closed first, and then there is nothing to shut.
    fn shut(&self, how: Shutdown) {
        if let Err(error) = self.socket.shutdown(how) {
            tracing::debug!(%error, "a socket was shut before");
        }
    }

    /// The wait says that the socket is ready for this.
    pub(super) fn ready(&mut self, what: Interest) {
        if what.read {
            self.readable = true;
        }
        if what.write {
            self.flush();
        }
    }

    /// What to wait for, if the guest has (`buffers`) room for packets.
    pub(super) fn interest(&self, buffers: bool) -> Interest {
        Interest { read: buffers && !self.readable && self.room() > 0, write: !self.held.is_empty() }
    }

    /// Whether reading is worth a try.
    pub(super) fn wants_read(&self) -> bool {
        self.readable && self.room() > 0
    }

    pub(super) fn room(&self) -> u32 {
        self.connection.room()
    }

    /// Forget what is known of the socket: time went by without a wait for it.
    pub(super) fn resume(&mut self) {
        self.readable = true;
    }

    pub(super) fn has_word(&self) -> bool {
        self.connection.has_word()
    }

    pub(super) fn word(&mut self) -> Option<(Op, u32)> {
        self.connection.word()
    }

    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.connection.tell()
    }
}

impl AsFd for Bridge {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Copies guest memory to the end of what is held; in pieces, as it must not be seen as a slice.
fn hold(held: &mut VecDeque<u8>, slice: &VolatileSlice<'_>) {
    let mut piece = [0; 4096];
    let mut done = 0;
    while done < slice.len() {
        let Ok(rest) = slice.offset(done) else { return };
        let n = rest.copy_to(&mut piece);
        held.extend(&piece[..n]);
        done += n;
    }
}

/// An I/O result without vm-memory's wrapping; its other errors are of slices that do not fit, which ours do.
fn plain(result: Result<usize, VolatileMemoryError>) -> io::Result<usize> {
    result.map_err(|error| match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    })
}
