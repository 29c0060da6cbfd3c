// SPDX-License-Identifier: Apache-2.0
//! Frames: the unit of the stream between host and agent.
//!
//! ```text
//!   0        4       5       6          8
//!   ┌────────┬───────┬───────┬──────────┬─────────────┐
//!   │ length │ kind  │   0   │ stream   │ payload …   │   little endian; length is the payload's
//!   └────────┴───────┴───────┴──────────┴─────────────┘
//! ```

use crate::message::{FromAgent, FromHost};
use prost::Message;
use thiserror::Error;

pub const HEADER_LEN: usize = 8;
/// Most bytes of stream data in one frame: a pipe's default capacity, so that one read makes one frame.
pub const MAX_DATA: usize = 64 * 1024;
/// Most bytes of an encoded message. A container with a long environment stays far below.
pub const MAX_MESSAGE: usize = 1024 * 1024;

const KIND_MESSAGE: u8 = 0;
const KIND_DATA: u8 = 1;
const KIND_EOF: u8 = 2;
const KIND_WINDOW: u8 = 3;

/// The byte streams of a process. With a terminal there is only `STDIN` and `STDOUT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u16);

impl StreamId {
    pub const STDIN: Self = Self(0);
    pub const STDOUT: Self = Self(1);
    pub const STDERR: Self = Self(2);
}

/// A frame as it arrives, borrowed from the decoder's buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// An encoded `FromHost` or `FromAgent`, by direction.
    Message(&'a [u8]),
    Data(StreamId, &'a [u8]),
    /// The writer of this stream is done; or, sent by its reader, wants no more of it.
    Eof(StreamId),
    /// The reader has room for this many more bytes.
    Window(StreamId, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    #[error("a frame of kind {kind} claims {len} bytes, more than the {max} allowed")]
    TooLong { kind: u8, len: u32, max: usize },
    #[error("a frame of kind {kind} has {len} bytes where {expected} are due")]
    WrongLength { kind: u8, len: u32, expected: usize },
}

/// Room of a stream that says little; one that fills it gets as much as the largest frame of data needs.
const FIRST_SPACE: usize = 4096;

/// Puts frames together from whatever pieces a stream delivers; holds one frame at most, and no memory before the first.
///
/// Feed it with `space` and `advance`, then take frames with `next_frame` until it gives `None`.
#[derive(Debug, Default)]
pub struct Decoder {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl Decoder {
    /// Where to read the stream into; never empty once `next_frame` has given `None`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.buf.is_empty() {
            self.buf.resize(FIRST_SPACE, 0);
        }
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buf[self.end..]
    }

    /// `n` bytes were read into `space`.
    pub fn advance(&mut self, n: usize) {
        self.end = (self.end + n).min(self.buf.len());
        if self.end == self.buf.len() && self.end < HEADER_LEN + MAX_DATA {
            self.buf.resize(HEADER_LEN + MAX_DATA, 0);
        }
    }

    /// The next whole frame, if it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let have = &self.buf[self.start..self.end];
        let Some((header, _)) = have.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, kind, _, s0, s1] = *header;
        let stream = StreamId(u16::from_le_bytes([s0, s1]));
        let len = checked_length(kind, u32::from_le_bytes([l0, l1, l2, l3]))?;
        let total = HEADER_LEN + len;
        if have.len() < total {
            if self.buf.len() < total {
                self.buf.resize(total, 0);
            }
            return Ok(None);
        }
        let payload = &self.buf[self.start + HEADER_LEN..self.start + total];
        self.start += total;
        Ok(Some(match (kind, payload) {
            (KIND_MESSAGE, _) => Frame::Message(payload),
            (KIND_DATA, _) => Frame::Data(stream, payload),
            (KIND_WINDOW, &[a, b, c, d]) => Frame::Window(stream, u32::from_le_bytes([a, b, c, d])),
            _ => Frame::Eof(stream),
        }))
    }
}

/// The length a header claims, if its kind may have it.
fn checked_length(kind: u8, len: u32) -> Result<usize, FrameError> {
    let n = usize::try_from(len).unwrap_or(usize::MAX);
    let at_most = |max| {
        if n <= max { Ok(n) } else { Err(FrameError::TooLong { kind, len, max }) }
    };
    let exactly = |expected| {
        if n == expected { Ok(n) } else { Err(FrameError::WrongLength { kind, len, expected }) }
    };
    match kind {
        KIND_MESSAGE => at_most(MAX_MESSAGE),
        KIND_DATA => at_most(MAX_DATA),
        KIND_EOF => exactly(0),
        KIND_WINDOW => exactly(4),
        _ => Err(FrameError::UnknownKind(kind)),
    }
}

/// The header of a `Data` frame whose payload of `len` bytes (at most `MAX_DATA`) the caller writes after it.
pub fn data_header(stream: StreamId, len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(len <= MAX_DATA);
    header(KIND_DATA, stream, len)
}

pub fn put_data(out: &mut Vec<u8>, stream: StreamId, data: &[u8]) {
    for piece in data.chunks(MAX_DATA) {
        out.extend_from_slice(&data_header(stream, piece.len()));
        out.extend_from_slice(piece);
    }
}

pub fn put_eof(out: &mut Vec<u8>, stream: StreamId) {
    out.extend_from_slice(&header(KIND_EOF, stream, 0));
}

pub fn put_window(out: &mut Vec<u8>, stream: StreamId, bytes: u32) {
    out.extend_from_slice(&header(KIND_WINDOW, stream, 4));
    out.extend_from_slice(&bytes.to_le_bytes());
}

/// A message for the agent. Fails only if it is over `MAX_MESSAGE`; then nothing is written.
pub fn put_from_host(out: &mut Vec<u8>, message: &FromHost) -> Result<(), FrameError> {
    put_message(out, message)
}

/// A message for the host; as `put_from_host`.
pub fn put_from_agent(out: &mut Vec<u8>, message: &FromAgent) -> Result<(), FrameError> {
    put_message(out, message)
}

fn put_message(out: &mut Vec<u8>, message: &impl Message) -> Result<(), FrameError> {
    let len = message.encoded_len();
    if len > MAX_MESSAGE {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        return Err(FrameError::TooLong { kind: KIND_MESSAGE, len, max: MAX_MESSAGE });
    }
    out.extend_from_slice(&header(KIND_MESSAGE, StreamId(0), len));
    message.encode(out).expect("a Vec grows as needed");
    Ok(())
}

fn header(kind: u8, StreamId(stream): StreamId, len: usize) -> [u8; HEADER_LEN] {
    let [l0, l1, l2, l3] = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    let [s0, s1] = stream.to_le_bytes();
    [l0, l1, l2, l3, kind, 0, s0, s1]
}

#[cfg(test)]
mod tests;
