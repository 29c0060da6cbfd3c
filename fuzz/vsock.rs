// SPDX-License-Identifier: Apache-2.0
//! Packets to the socket device, beside a host that reads, writes and leaves as it likes. What comes back is addressed
//! to the guest, as long as it says, and of a known operation; whatever was said, the device can be reset.

use crate::machine::{BUFFERS, Buffer, Machine};
use arbitrary::{Arbitrary, Unstructured};
use isopod_devices::virtio::vsock::Vsock;
use isopod_sys::signal;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use vm_memory::{Bytes, GuestAddress};

const RX: usize = 0;
const TX: usize = 1;
/// What the device offers.
const RX_SIZE: usize = 64;
const HEADER_LEN: u32 = 44;
const GUEST: u64 = 3;
const PORT: u32 = 1024;
const GUEST_PORT: u32 = 5000;
/// Each chain has room of its own: there are more slots than steps.
const SLOT: u64 = 0x1000;
const SLOTS: u64 = 110;
const MAX_STEPS: usize = 100;

#[derive(Debug, Arbitrary)]
struct Input {
    /// Most guests begin by connecting.
    skips_connect: Option<bool>,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Packet(Packet),
    Data(u16),
    Post { len: u16, is_split: bool },
    HostWrites(u16),
    HostReads(u16),
    HostEnds,
    HostLeaves,
    Restart,
    Settle,
}

#[derive(Debug, Arbitrary)]
struct Packet {
    op: u8,
    flags: u8,
    payload: u16,
    /// Another length than the payload's.
    len: Option<u32>,
    buf_alloc: Option<u32>,
    fwd_cnt: Option<u32>,
    stranger: Option<Stranger>,
    is_split: bool,
}

/// What makes a packet somebody else's.
#[derive(Debug, Arbitrary)]
enum Stranger {
    Port(u32),
    HostPort(u32),
    Source(u64),
    Destination(u64),
    Kind(u16),
    Op(u16),
    Short(u8),
}

struct Guest {
    machine: Machine,
    host: Option<UnixStream>,
    slot: u64,
    received: u32,
    /// Where the buffers of each chain for packets begin, by its head, and how many they are.
    posted: [(u64, u16); RX_SIZE],
    /// Buffers for packets that the device has; the ring holds no more than its size.
    open: u16,
}

pub(crate) fn packets(bytes: &[u8]) {
    let Ok(input) = Unstructured::new(bytes).arbitrary::<Input>() else {
        return;
    };
    // Rust's start-up does this, but the fuzzer's is not Rust's.
    signal::ignore(signal::SIGPIPE).expect("SIGPIPE can be ignored");
    let (host, agent) = UnixStream::pair().expect("a pair of sockets");
    host.set_nonblocking(true).expect("a socket can be told not to block");
    let device = Vsock::new(GUEST, PORT, agent).expect("a socket can be told not to block");
    let mut guest = Guest {
        machine: Machine::new(device),
        host: Some(host),
        slot: 0,
        received: 0,
        posted: [(0, 0); RX_SIZE],
        open: 0,
    };
    guest.machine.set_up();
    if input.skips_connect != Some(true) {
        guest.post(4000, false);
        guest.send(&Packet::usual(1, 0));
    }
    for step in input.steps.iter().take(MAX_STEPS) {
        guest.take(step);
    }
    guest.machine.settle(TX);
    guest.look();
    guest.machine.end();
}

impl Packet {
    fn usual(op: u8, payload: u16) -> Self {
        let (len, buf_alloc, fwd_cnt, stranger) = (None, None, None, None);
        Self { op, flags: 0, payload, len, buf_alloc, fwd_cnt, stranger, is_split: true }
    }

    /// `struct virtio_vsock_hdr`.
    fn header(&self, received: u32) -> [u8; 44] {
        let (mut source, mut destination, mut port, mut host_port) = (GUEST, 2, GUEST_PORT, PORT);
        let (mut kind, mut op) = (1, u16::from(self.op % 9));
        match self.stranger {
            Some(Stranger::Port(n)) => port = n,
            Some(Stranger::HostPort(n)) => host_port = n,
            Some(Stranger::Source(n)) => source = n,
            Some(Stranger::Destination(n)) => destination = n,
            Some(Stranger::Kind(n)) => kind = n,
            Some(Stranger::Op(n)) => op = n,
            Some(Stranger::Short(_)) | None => {}
        }
        let mut out = [0; 44];
        out[..8].copy_from_slice(&source.to_le_bytes());
        out[8..16].copy_from_slice(&destination.to_le_bytes());
        out[16..20].copy_from_slice(&port.to_le_bytes());
        out[20..24].copy_from_slice(&host_port.to_le_bytes());
        out[24..28].copy_from_slice(&self.len.unwrap_or(u32::from(self.payload)).to_le_bytes());
        out[28..30].copy_from_slice(&kind.to_le_bytes());
        out[30..32].copy_from_slice(&op.to_le_bytes());
        out[32..36].copy_from_slice(&u32::from(self.flags).to_le_bytes());
        out[36..40].copy_from_slice(&self.buf_alloc.unwrap_or(0x4_0000).to_le_bytes());
        out[40..].copy_from_slice(&self.fwd_cnt.unwrap_or(received).to_le_bytes());
        out
    }
}

impl Guest {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Packet(packet) => self.send(packet),
            Step::Data(len) => self.send(&Packet::usual(5, *len)),
            Step::Post { len, is_split } => self.post(*len, *is_split),
            Step::HostWrites(len) => {
                let written = self.host.as_mut().map(|host| host.write(&vec![7; usize::from(*len)]));
                drop(written);
            }
            Step::HostReads(len) => {
                let read = self.host.as_mut().map(|host| host.read(&mut vec![0; usize::from(*len)]));
                drop(read);
            }
            Step::HostEnds => drop(self.host.as_ref().map(|host| host.shutdown(Shutdown::Write))),
            Step::HostLeaves => self.host = None,
            Step::Restart => {
                self.machine.set_up();
                self.open = 0;
            }
            Step::Settle => {
                self.machine.settle(TX);
                self.look();
            }
        }
    }

    fn next_slot(&mut self) -> u64 {
        self.slot = (self.slot + 1) % SLOTS;
        BUFFERS + self.slot * SLOT
    }

    fn send(&mut self, packet: &Packet) {
        let slot = self.next_slot();
        self.machine.poke(slot, &packet.header(self.received));
        let buffer = |addr, len| Buffer { addr, len, is_writable: false };
        let payload = u32::from(packet.payload);
        let chain = match packet.stranger {
            Some(Stranger::Short(len)) => vec![buffer(slot, u32::from(len % 44).max(1))],
            _ if packet.is_split && payload > 0 => {
                vec![buffer(slot, HEADER_LEN), buffer(slot + u64::from(HEADER_LEN), payload)]
            }
            _ => vec![buffer(slot, HEADER_LEN + payload)],
        };
        self.machine.add(TX, &chain);
    }

    fn post(&mut self, len: u16, is_split: bool) {
        if usize::from(self.open) + 2 > RX_SIZE {
            return;
        }
        let slot = self.next_slot();
        let len = u32::from(len % 4096).max(1);
        let buffer = |addr, len| Buffer { addr, len, is_writable: true };
        let chain = if is_split && len > HEADER_LEN {
            let rest = buffer(slot + u64::from(HEADER_LEN), len - HEADER_LEN);
            vec![buffer(slot, HEADER_LEN), rest]
        } else {
            vec![buffer(slot, len)]
        };
        let buffers = if chain.len() > 1 { 2 } else { 1 };
        let head = self.machine.add(RX, &chain);
        self.posted[usize::from(head)] = (slot, buffers);
        self.open += buffers;
    }

    /// What came, in buffers that are each in one piece.
    fn look(&mut self) {
        while let Some((head, written)) = self.machine.driver.take_used(RX) {
            assert!(written == 0 || written >= HEADER_LEN, "half a header");
            let posted = usize::try_from(head).ok().and_then(|head| self.posted.get(head));
            let (slot, buffers) = *posted.expect("it was posted");
            self.open = self.open.saturating_sub(buffers);
            if written > 0 {
                let mut header = [0; 44];
                self.machine
                    .driver
                    .memory
                    .read_slice(&mut header, GuestAddress(slot))
                    .expect("it is in memory");
                let field =
                    |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("it is 44 bytes"));
                assert_eq!(field(24) + HEADER_LEN, written, "a length that is not the packet's");
                assert_eq!((u64::from(field(8)), field(12)), (GUEST, 0), "a packet for somebody else");
                assert!((2..=7).contains(&(field(28) >> 16)), "an operation no device begins");
                self.received = self.received.wrapping_add(field(24));
            }
        }
    }
}
