// SPDX-License-Identifier: Apache-2.0
//! Frames of the agent's stream, put together by hand: a sound writer would refuse most of what is needed here.

pub(crate) const MESSAGE: u8 = 0;
pub(crate) const DATA: u8 = 1;
pub(crate) const EOF: u8 = 2;
pub(crate) const WINDOW: u8 = 3;

pub(crate) const STDIN: u16 = 0;
pub(crate) const STDOUT: u16 = 1;
pub(crate) const STDERR: u16 = 2;

/// What the agent may say, by its number.
pub(crate) const HELLO: u8 = 1;
pub(crate) const STARTED: u8 = 2;
pub(crate) const FAILED: u8 = 3;
pub(crate) const ACK: u8 = 4;
pub(crate) const EXITED: u8 = 5;
pub(crate) const FROZEN: u8 = 6;
pub(crate) const THAWED: u8 = 7;

/// The version an agent of this build speaks.
pub(crate) const VERSION: u64 = 2;

/// Bytes that are about to be sent.
pub(crate) struct Frames {
    bytes: [u8; 16 << 10],
    len: usize,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; 16 << 10], len: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.add(bytes);
        self
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(crate) fn header(mut self, kind: u8, stream: u16, len: u32) -> Self {
        self.add(&len.to_le_bytes());
        self.add(&[kind, 0]);
        self.add(&stream.to_le_bytes());
        self
    }

    pub(crate) fn frame(self, kind: u8, stream: u16, payload: &[u8]) -> Self {
        self.header(kind, stream, payload.len() as u32).raw(payload)
    }

    /// A message of this number, whose fields are `body`.
    pub(crate) fn message(self, number: u8, body: &[u8]) -> Self {
        let mut head = [number << 3 | 2, 0, 0];
        let len = body.len();
        let used = if len < 128 {
            head[1] = len as u8;
            2
        } else {
            (head[1], head[2]) = ((len & 127) as u8 | 128, (len >> 7) as u8);
            3
        };
        self.header(MESSAGE, 0, (used + len) as u32).raw(&head[..used]).raw(body)
    }

    pub(crate) fn hello(self, version: u64) -> Self {
        self.message(HELLO, &[8, version as u8, 18, 1, b'x', 26, 1, b'y'])
    }

    pub(crate) fn started(self) -> Self {
        self.message(STARTED, &[])
    }

    /// A field of a number, which may be a negative one.
    pub(crate) fn exited(self, fields: &[(u8, i64)]) -> Self {
        let mut body = [0; 40];
        let mut len = 0;
        for (field, value) in fields {
            body[len] = field << 3;
            len += 1;
            let mut left = *value as u64;
            while left >= 128 {
                body[len] = left as u8 | 128;
                left >>= 7;
                len += 1;
            }
            body[len] = left as u8;
            len += 1;
        }
        self.message(EXITED, &body[..len])
    }
}

/// Takes apart what the host sends, as far as it matters: how much room it grants, and that it said something.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    head: [u8; 12],
    have: usize,
    skip: u32,
    pub(crate) messages: u32,
    /// Room for each output, beyond what there is at the start.
    pub(crate) granted: [u64; 3],
}

impl Reader {
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.head[self.have] = *byte;
            self.have += 1;
            if self.have < 8 {
                continue;
            }
            let [l0, l1, l2, l3, kind, _, s0, s1, w0, w1, w2, w3] = self.head;
            if kind == WINDOW && self.have < 12 {
                continue;
            }
            self.have = 0;
            if kind == WINDOW {
                let stream = usize::from(u16::from_le_bytes([s0, s1])).min(2);
                self.granted[stream] += u64::from(u32::from_le_bytes([w0, w1, w2, w3]));
            } else {
                self.messages += u32::from(kind == MESSAGE);
                self.skip = u32::from_le_bytes([l0, l1, l2, l3]);
            }
        }
    }
}
