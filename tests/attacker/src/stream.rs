// SPDX-License-Identifier: Apache-2.0
//! The agent's one connection, as an honest driver makes it, so that what is said on it arrives.

use crate::driver::{Device, NEXT, STATUS, VSOCK, WRITE};
use crate::frames::Reader;
use crate::memory::{ANSWERS, BUFFERS, get, get_bytes, put_bytes};
use crate::packets::{self, CREDIT_UPDATE, DATA, HEADER, Packet, REQUEST, RESET, RESPONSE, RX, SHUTDOWN, TX};
use crate::port::{clock, tell};

/// The agent's own port.
pub(crate) const PORT: u32 = 4000;
const RX_LEN: u32 = 4096;
/// What the device holds of the guest's, at most.
const CREDIT: u32 = 256 << 10;
/// Ticks until it is given up that the host will read on.
const PATIENCE: u64 = 60_000_000_000;

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) device: Device,
    sent: u32,
    forwarded: u32,
    received: u32,
    pub(crate) is_open: bool,
    pub(crate) heard: Reader,
}

impl Stream {
    /// Without buffers the host can never be heard.
    pub(crate) fn connect(buffers: u16) -> Self {
        let mut device = Device::new(VSOCK);
        device.start();
        let mut stream =
            Self { device, sent: 0, forwarded: 0, received: 0, is_open: true, heard: Reader::default() };
        stream.post_all(buffers);
        stream.say(REQUEST, 0);
        stream
    }

    /// From here on the host is heard.
    pub(crate) fn post_all(&mut self, buffers: u16) {
        (0..buffers).for_each(|index| self.post(index));
        self.device.kick(RX);
    }

    /// Bytes of the host's.
    pub(crate) fn received(&self) -> u32 {
        self.received
    }

    fn post(&mut self, index: u16) {
        self.device.describe(RX, index, (ANSWERS + u64::from(index) * u64::from(RX_LEN), RX_LEN), (WRITE, 0));
        self.device.offer(RX, index);
    }

    /// A packet without data.
    pub(crate) fn say(&mut self, op: u16, flags: u32) {
        self.packet(Packet { flags, ..Packet::agents(PORT, op) }, &[]);
    }

    fn packet(&mut self, packet: Packet, data: &[u8]) {
        let packet = Packet { len: data.len() as u32, forwarded: self.received, ..packet };
        packet.put(BUFFERS);
        put_bytes(BUFFERS + u64::from(HEADER), data);
        let payload = (BUFFERS + u64::from(HEADER), packet.len);
        let next = if data.is_empty() { (0, 0) } else { (NEXT, 1) };
        self.device.describe(TX, 0, (BUFFERS, HEADER), next);
        self.device.describe(TX, 1, payload, (0, 0));
        self.device.offer(TX, 0);
        self.device.kick(TX);
        if self.device.answer(TX).is_none() {
            let status = self.device.read(STATUS);
            tell!("odd: a packet is not taken, status ", status);
            self.is_open = false;
        }
    }

    /// Sends it all, as fast as the host takes it; gives whether it took it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        for piece in bytes.chunks(16 << 10) {
            let from = clock();
            while self.is_open && CREDIT - self.sent.wrapping_sub(self.forwarded) < piece.len() as u32 {
                self.listen();
                if clock().wrapping_sub(from) > PATIENCE {
                    tell!("the host does not read on");
                    return false;
                }
            }
            if !self.is_open {
                return false;
            }
            self.packet(Packet::agents(PORT, DATA), piece);
            self.sent = self.sent.wrapping_add(piece.len() as u32);
            self.listen();
        }
        true
    }

    /// Takes what has come.
    pub(crate) fn listen(&mut self) {
        let mut came = false;
        while let Some((index, len)) = self.device.next_used(RX, 0) {
            let at = ANSWERS + u64::from(index) * u64::from(RX_LEN);
            self.hear(at, len);
            self.post(index);
            came = true;
        }
        if came {
            self.device.kick(RX);
        }
    }

    fn hear(&mut self, at: u64, len: u32) {
        let op: u16 = get(at + 30);
        self.forwarded = get(at + 40);
        match op {
            DATA => {
                let mut bytes = [0; RX_LEN as usize];
                let data = &mut bytes[..(len - HEADER) as usize];
                get_bytes(at + u64::from(HEADER), data);
                self.heard.read(data);
                self.received = self.received.wrapping_add(len - HEADER);
            }
            RESET | SHUTDOWN => self.is_open = false,
            packets::CREDIT_REQUEST => self.say(CREDIT_UPDATE, 0),
            RESPONSE | CREDIT_UPDATE => {}
            other => tell!("odd: the host says ", u32::from(other)),
        }
    }

    /// Until the host has said so many messages, or hung up.
    pub(crate) fn await_messages(&mut self, count: u32) -> bool {
        while self.is_open && self.heard.messages < count {
            self.listen();
        }
        self.is_open
    }

    /// Until there is room for so many bytes more of an output of which `said` were sent.
    pub(crate) fn await_room(&mut self, stream: u16, said: u64, more: u64) -> bool {
        while self.is_open && u64::from(CREDIT) + self.heard.granted[usize::from(stream)] < said + more {
            self.listen();
        }
        self.is_open
    }
}
