// SPDX-License-Identifier: Apache-2.0
//! The line to the host: frames in, frames out, never waiting unless asked to.
//!
//! ```text
//!   outbox:  [ header data header data … message … ]  then at most one promise: bytes that are still in a pipe  then [ later messages ]
//!             one send                                 spliced
//! ```
//! It is bounded: streams are read only while it is nearly empty, and so is the host.

use isopod_protocol::frame::{HEADER_LEN, MAX_DATA, data_header, put_from_agent};
use isopod_protocol::message::AgentSays;
use isopod_protocol::{Decoder, StreamId};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pipe::{SpliceFlags, splice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A piece of each of two streams.
const DATA_ROOM: usize = 2 * (HEADER_LEN + MAX_DATA);
/// Acknowledgements, grants and ends. While there are more than this the host is not listened to.
const CONTROL_ROOM: usize = 4096;

/// What waits to be sent.
#[derive(Debug)]
pub(crate) struct Outbox {
    // As long as it will ever get; its pages exist once they are used.
    buf: Vec<u8>,
    start: usize,
    end: usize,
    promise: Option<(StreamId, usize)>,
    behind: Vec<u8>,
    /// Bytes of messages put in since it was last empty.
    messages: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            buf: vec![0; DATA_ROOM + CONTROL_ROOM],
            start: 0,
            end: 0,
            promise: None,
            behind: Vec::new(),
            messages: 0,
        }
    }
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end && self.promise.is_none()
    }

    /// Whether it is worth reading more.
    pub(crate) fn is_nearly_empty(&self) -> bool {
        self.promise.is_none() && self.end <= CONTROL_ROOM / 2
    }

    /// Whether a piece of data may be added, and messages after it.
    pub(crate) fn takes_data(&self) -> bool {
        self.promise.is_none() && self.end + HEADER_LEN + MAX_DATA + CONTROL_ROOM / 2 <= self.buf.len()
    }

    /// Whether a message may be added.
    pub(crate) fn takes_messages(&self) -> bool {
        self.messages <= CONTROL_ROOM / 2
    }

    /// Adds frames that are not data.
    pub(crate) fn put(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let from = self.behind.len();
        put(&mut self.behind);
        self.messages += self.behind.len() - from;
        if self.promise.is_none() {
            self.admit(from);
        }
    }

    /// Moves what is behind into the buffer. A long message makes it longer for once.
    fn admit(&mut self, from: usize) {
        let end = self.end + self.behind.len() - from;
        if end > self.buf.len() {
            self.buf.resize(end, 0);
        }
        self.buf[self.end..end].copy_from_slice(&self.behind[from..]);
        self.end = end;
        self.behind.truncate(from);
    }

    /// A message that fits: the agent makes no others.
    pub(crate) fn say(&mut self, says: AgentSays) {
        self.put(|buf| {
            let _ = put_from_agent(buf, &says.into());
        });
    }

    /// Where to read a piece of data into, if it takes data.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let from = self.end + HEADER_LEN;
        &mut self.buf[from..from + MAX_DATA]
    }

    /// `n` bytes of this stream were read into `space`.
    pub(crate) fn filled(&mut self, stream: StreamId, n: usize) {
        self.buf[self.end..self.end + HEADER_LEN].copy_from_slice(&data_header(stream, n));
        self.end += HEADER_LEN + n;
    }

    /// Announces `n` bytes that will be spliced from this stream's pipe; false if another has been promised already.
    pub(crate) fn promise(&mut self, stream: StreamId, n: usize) -> bool {
        if self.promise.is_some() {
            return false;
        }
        self.put(|buf| buf.extend_from_slice(&data_header(stream, n)));
        self.promise = Some((stream, n));
        true
    }

    /// Whose bytes were promised.
    pub(crate) fn promised(&self) -> Option<StreamId> {
        self.promise.map(|(stream, _)| stream)
    }

    fn kept(&mut self, n: usize) {
        if let Some((_, left)) = &mut self.promise {
            *left = left.saturating_sub(n);
            if *left == 0 {
                self.promise = None;
                self.admit(0);
            }
        }
    }
}

/// The stream to the host.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    pub(crate) decoder: Decoder,
    pub(crate) out: Outbox,
    // Splicing knows no MSG_DONTWAIT; only then it is worth a system call.
    never_waits: bool,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, decoder: Decoder::default(), out: Outbox::default(), never_waits: false }
    }

    /// Takes in what has come; false if the host has hung up. With no flags it waits for something.
    pub(crate) fn receive(&mut self, flags: RecvFlags) -> Result<bool, Errno> {
        match recv(&self.socket, self.decoder.space(), flags) {
            Ok((0, _)) => Ok(false),
            Ok((n, _)) => {
                self.decoder.advance(n);
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(Errno::CONNRESET | Errno::NOTCONN) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends as much as the socket takes. `pipe` is where promised bytes are.
    pub(crate) fn flush(&mut self, pipe: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        loop {
            let sent = if self.out.start < self.out.end {
                let bytes = &self.out.buf[self.out.start..self.out.end];
                send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            } else if let (Some((_, left)), Some(pipe)) = (self.out.promise, pipe) {
                self.splice(pipe, left)
            } else {
                return Ok(());
            };
            match sent {
                Ok(n) => self.sent(n),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn sent(&mut self, n: usize) {
        if self.out.start == self.out.end {
            return self.out.kept(n);
        }
        self.out.start += n;
        if self.out.start >= self.out.end {
            (self.out.start, self.out.end) = (0, 0);
            self.out.messages = 0;
        }
    }

    fn splice(&mut self, pipe: BorrowedFd<'_>, len: usize) -> Result<usize, Errno> {
        if !self.never_waits {
            ioctl_fionbio(&self.socket, true)?;
            self.never_waits = true;
        }
        // Promised bytes are in the pipe, and nobody else reads it: 0 would be a kernel's lie, and must not spin.
        match splice(pipe, None, &self.socket, None, len, SpliceFlags::NONBLOCK)? {
            0 => Err(Errno::IO),
            n => Ok(n),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
