// SPDX-License-Identifier: Apache-2.0
//! Packets of vsock as bytes: every operation, from and to anybody, with credit that shrinks and runs backwards.

use crate::memory::{BUFFERS, put};
use crate::random::Random;

/// The queues with packets: from the host, and to it.
pub(crate) const RX: u64 = 0;
pub(crate) const TX: u64 = 1;

pub(crate) const HEADER: u32 = 44;
pub(crate) const GUEST: u64 = 3;
pub(crate) const HOST: u64 = 2;
/// The one port of the host that takes a connection.
pub(crate) const AGENT: u32 = 1024;

pub(crate) const REQUEST: u16 = 1;
pub(crate) const RESPONSE: u16 = 2;
pub(crate) const RESET: u16 = 3;
pub(crate) const SHUTDOWN: u16 = 4;
pub(crate) const DATA: u16 = 5;
pub(crate) const CREDIT_UPDATE: u16 = 6;
pub(crate) const CREDIT_REQUEST: u16 = 7;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) from: (u64, u32),
    pub(crate) to: (u64, u32),
    pub(crate) len: u32,
    pub(crate) kind: u16,
    pub(crate) op: u16,
    pub(crate) flags: u32,
    pub(crate) room: u32,
    pub(crate) forwarded: u32,
}

impl Packet {
    /// On the connection from `port` to where the agent is awaited.
    pub(crate) fn agents(port: u32, op: u16) -> Self {
        Self {
            from: (GUEST, port),
            to: (HOST, AGENT),
            len: 0,
            kind: 1,
            op,
            flags: 0,
            room: 1 << 20,
            forwarded: 0,
        }
    }

    pub(crate) fn put(&self, at: u64) {
        put(at, self.from.0);
        put(at + 8, self.to.0);
        put(at + 16, self.from.1);
        put(at + 20, self.to.1);
        put(at + 24, self.len);
        put(at + 28, self.kind);
        put(at + 30, self.op);
        put(at + 32, self.flags);
        put(at + 36, self.room);
        put(at + 40, self.forwarded);
    }
}

/// Any packet but the one that would open the agent's connection: the engine would end the machine for what follows.
pub(crate) fn any(random: &mut Random, slot: u64) -> (u64, u32) {
    let at = BUFFERS + slot * 0x2000;
    let any_port = random.word();
    let op = if random.once_in(8) { random.half() } else { random.below(9) as u16 };
    let mut packet = Packet {
        from: (
            random.pick(&[GUEST, GUEST, GUEST, 0, 1, HOST, u64::MAX]),
            random.pick(&[0, 1, any_port, u32::MAX]),
        ),
        to: (
            random.pick(&[HOST, HOST, HOST, GUEST, 0, u64::MAX]),
            random.pick(&[AGENT, AGENT, 0, any_port, u32::MAX]),
        ),
        len: random.pick(&[0, 0, 1, 64, 4096, 0x4_0001, u32::MAX, any_port]),
        kind: random.pick(&[1, 1, 1, 1, 0, 2, 0xffff]),
        op,
        flags: random.pick(&[0, 1, 2, 3, u32::MAX]),
        room: random.pick(&[0, 1, 4096, u32::MAX, any_port]),
        forwarded: random.pick(&[0, 1, u32::MAX, any_port]),
    };
    if packet.op == REQUEST && packet.to.1 == AGENT {
        packet.to.1 = AGENT + 1;
    }
    packet.put(at);
    let len = random.pick(&[HEADER, HEADER, HEADER, HEADER + 64, HEADER + 4096, HEADER - 1, 1, 0x1000]);
    (at, len)
}

/// On the agent's open connection, what leaves it open: credit of every kind, and data of no bytes. In places of their own:
/// one that is read while the next is written must not be half another's.
pub(crate) fn on_connection(random: &mut Random, slot: u64, port: u32) -> (u64, u32) {
    let at = BUFFERS + (16 + slot) * 0x2000;
    let any = random.word();
    let packet = Packet {
        op: random.pick(&[CREDIT_UPDATE, CREDIT_UPDATE, CREDIT_REQUEST, DATA, SHUTDOWN]),
        room: random.pick(&[0, 1, 4096, u32::MAX, any]),
        forwarded: random.pick(&[0, 1, u32::MAX, any]),
        flags: random.pick(&[0, 4, 8, 0xffff_fffc]),
        ..Packet::agents(port, DATA)
    };
    packet.put(at);
    (at, HEADER + random.pick(&[0, 0, 1, 64]))
}
