// SPDX-License-Identifier: Apache-2.0
//! Which packet belongs to what: the agent's connection, or nothing, and then it is answered by RST (§5.10.6.2).
//!
//! ```text
//!    guest's packet ──► addressed to the host, to this port, from itself, a stream? ── no ──► refusals
//!                         │ yes                                                                  │
//!                         ▼                                                                      ▼
//!                       Bridge ──────────── its words, then its data ───────────────► guest's buffers
//! ```
//!
//! There is one connection in a machine's life, so there is one `Bridge` and no table of them. The list of
//! refusals is bounded: while it is full no packet of the guest's is looked at, until it posts buffers (§5.10.6.1).

use super::bridge::{Bridge, Input};
use super::connection::Heard;
use super::packet::{HEADER_LEN, HOST_CID, Header, Op, TYPE_STREAM};
use crate::virtio::GuestMemory;
use crate::virtio::chain::Chain;
use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;

/// RSTs that may wait for buffers of the guest.
const MAX_REFUSALS: usize = 64;

/// Where the guest is, and the one port of the host it may connect to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    pub(super) guest: u64,
    pub(super) port: u32,
}

/// What became of a buffer of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// A packet of this many bytes.
    Packet(usize),
    /// It is too small for the packet that is due; the packet waits.
    TooSmall,
    /// There was no packet after all.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Muxer {
    address: Address,
    pub(super) bridge: Bridge,
    /// The guest's port of the connection, once there is or was one.
    pub(super) guest_port: Option<u32>,
    refusals: VecDeque<Header>,
}

impl Muxer {
    pub(super) fn new(address: Address, agent: UnixStream) -> io::Result<Self> {
        Ok(Self { address, bridge: Bridge::new(agent)?, guest_port: None, refusals: VecDeque::new() })
    }

    /// Whether another packet of the guest's may be looked at: it may need an answer.
    pub(super) fn may_receive(&self) -> bool {
        self.refusals.len() < MAX_REFUSALS
    }

    /// How many RSTs wait for buffers.
    pub(super) fn refusals(&self) -> usize {
        self.refusals.len()
    }

    /// A packet of the guest's. One too short for a header has no sender to answer, and is dropped.
    pub(super) fn receive(&mut self, memory: &GuestMemory, packet: &Chain) {
        let mut bytes = [0; HEADER_LEN];
        if packet.read(memory, 0, &mut bytes) < HEADER_LEN {
            return;
        }
        let header = Header::parse(&bytes);
        if !self.is_for_the_agent(&header) {
            return self.refuse(&header);
        }
        let claimed = usize::try_from(header.len).unwrap_or(usize::MAX);
        let has_payload = header.op == Op::Data;
        if has_payload && claimed > packet.readable_len() - HEADER_LEN {
            return self.break_off(&header);
        }
        let payload =
            if has_payload { packet.readable_slices(memory, HEADER_LEN, claimed) } else { Vec::new() };
        let was_idle = self.bridge.is_idle();
        if self.bridge.hear(&header, &payload) == Heard::Refused {
            return self.refuse(&header);
        }
        if was_idle {
            self.guest_port = Some(header.src_port);
        }
    }

    fn is_for_the_agent(&self, header: &Header) -> bool {
        header.dst_cid == HOST_CID
            && header.dst_port == self.address.port
            && header.src_cid == self.address.guest
            && header.kind == TYPE_STREAM
            && self.guest_port.is_none_or(|port| port == header.src_port)
    }

    /// A packet whose payload is not there. On the connection it is its end, elsewhere just refused.
    fn break_off(&mut self, header: &Header) {
        if self.guest_port.is_none() || !self.bridge.is_open() {
            return self.refuse(header);
        }
        self.bridge.break_off();
    }

    fn refuse(&mut self, header: &Header) {
        self.refusals.extend(header.refusal(self.address.guest));
    }

    /// Whether `fill` may have a packet for the guest.
    pub(super) fn has_packet(&self) -> bool {
        !self.refusals.is_empty() || self.bridge.has_word() || self.bridge.wants_read()
    }

    /// Puts the next packet for the guest into a buffer of its.
    pub(super) fn fill(&mut self, memory: &GuestMemory, buffer: &Chain) -> Filled {
        let Some(space) = buffer.writable_len().checked_sub(HEADER_LEN) else {
            return Filled::TooSmall;
        };
        if let Some(header) = self.control() {
            return put(memory, buffer, &header);
        }
        if !self.bridge.wants_read() {
            return Filled::Nothing;
        }
        if space == 0 {
            return Filled::TooSmall;
        }
        let len = space.min(usize::try_from(self.bridge.room()).unwrap_or(usize::MAX));
        match self.bridge.read_into(&mut buffer.writable_slices(memory, HEADER_LEN, len)) {
            Input::Bytes(len) => put(memory, buffer, &self.header(Op::Data, 0, len)),
            Input::Nothing => Filled::Nothing,
            Input::Ended => match self.control() {
                Some(header) => put(memory, buffer, &header),
                None => Filled::Nothing,
            },
        }
    }

    /// The next packet that has no payload.
    fn control(&mut self) -> Option<Header> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(refusal);
        }
        let (op, flags) = self.bridge.word()?;
        Some(self.header(op, flags, 0))
    }

    fn header(&mut self, op: Op, flags: u32, len: u32) -> Header {
        let (buf_alloc, fwd_cnt) = self.bridge.tell();
        Header {
            src_cid: HOST_CID,
            dst_cid: self.address.guest,
            src_port: self.address.port,
            dst_port: self.guest_port.unwrap_or_default(),
            len,
            kind: TYPE_STREAM,
            op,
            flags,
            buf_alloc,
            fwd_cnt,
        }
    }
}

/// Writes the header in front of a payload that is already there.
fn put(memory: &GuestMemory, buffer: &Chain, header: &Header) -> Filled {
    buffer.write(memory, 0, &header.encode());
    Filled::Packet(HEADER_LEN + usize::try_from(header.len).unwrap_or_default())
}
