// SPDX-License-Identifier: Apache-2.0
//! A guest's driver, as honest or as hostile as a test wants it: three rings in memory, and the device's own thread.

use super::super::packet::{HEADER_LEN, HOST_CID, Header, Op, TYPE_STREAM};
use super::super::{EVENT_QUEUE_SIZE, RX_SIZE, TX_SIZE, Vsock};
use crate::virtio::{Bound, BoundQueue, GuestMemory, Interrupt, VirtioDevice};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Address, Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub(in crate::virtio::vsock) const CID: u64 = 3;
pub(in crate::virtio::vsock) const PORT: u32 = 1024;
pub(in crate::virtio::vsock) const GUEST_PORT: u32 = 5000;
pub(in crate::virtio::vsock) const GUEST_BUFFER: u32 = 256 * 1024;

const PATIENCE: Duration = Duration::from_secs(20);
const RING_SPACE: u64 = 0x4000;
const BUFFERS: u64 = 0x10_0000;
/// Room for each descriptor's buffer.
const SLOT: u64 = 0x1_0000;

pub(in crate::virtio::vsock) const NEXT: u16 = 1;
pub(in crate::virtio::vsock) const WRITE: u16 = 2;

/// The driver's side of a queue.
struct Ring {
    base: GuestAddress,
    buffers: GuestAddress,
    size: u16,
    next_descriptor: u16,
    available: u16,
    used: u16,
    kick: EventFd,
}

impl Ring {
    fn new(index: u64, size: u16) -> Self {
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        let buffers = GuestAddress(BUFFERS + index * SLOT * u64::from(TX_SIZE.max(RX_SIZE)));
        let base = GuestAddress(RING_SPACE * (index + 1));
        Self { base, buffers, size, next_descriptor: 0, available: 0, used: 0, kick }
    }

    fn bound(&self) -> BoundQueue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.set_size(self.size);
        let at = |offset| Some(u32::try_from(self.base.raw_value() + offset).unwrap());
        queue.set_desc_table_address(at(0), Some(0));
        queue.set_avail_ring_address(at(0x1000), Some(0));
        queue.set_used_ring_address(at(0x2000), Some(0));
        queue.set_event_idx(true);
        queue.set_ready(true);
        BoundQueue { queue, kick: self.kick.try_clone().unwrap() }
    }

    fn slot(&self, descriptor: u16) -> GuestAddress {
        self.buffers.unchecked_add(SLOT * u64::from(descriptor))
    }

    fn put(&self, memory: &GuestMemory, index: u16, descriptor: Descriptor) {
        memory.write_obj(descriptor, self.base.unchecked_add(16 * u64::from(index))).unwrap();
    }

    /// Makes a chain of buffers of these lengths available; gives its descriptors.
    fn add(&mut self, memory: &GuestMemory, lengths: &[u32], flags: u16) -> Vec<u16> {
        let first = self.next_descriptor;
        let mut indices = Vec::new();
        for (n, len) in (1..).zip(lengths) {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let next = if n < lengths.len() { NEXT } else { 0 };
            let descriptor = Descriptor::new(self.slot(index).0, *len, flags | next, self.next_descriptor);
            self.put(memory, index, descriptor);
            indices.push(index);
        }
        self.offer(memory, first);
        indices
    }

    fn offer(&mut self, memory: &GuestMemory, head: u16) {
        let entry = 4 + 2 * u64::from(self.available % self.size);
        memory.write_obj(head, self.base.unchecked_add(0x1000 + entry)).unwrap();
        self.available = self.available.wrapping_add(1);
        memory.write_obj(self.available, self.base.unchecked_add(0x1002)).unwrap();
        self.kick.write(1).unwrap();
    }

    fn take_used(&mut self, memory: &GuestMemory) -> Option<(u16, usize)> {
        let index: u16 = memory.load(self.base.unchecked_add(0x2002), Ordering::Acquire).unwrap();
        if index == self.used {
            return None;
        }
        let entry = 4 + 8 * u64::from(self.used % self.size);
        let [id, len]: [u32; 2] = memory.read_obj(self.base.unchecked_add(0x2000 + entry)).unwrap();
        self.used = self.used.wrapping_add(1);
        Some((u16::try_from(id).unwrap(), len as usize))
    }
}

pub(in crate::virtio::vsock) struct Guest {
    pub(in crate::virtio::vsock) memory: GuestMemory,
    pub(in crate::virtio::vsock) device: Vsock,
    pub(in crate::virtio::vsock) interrupt: Interrupt,
    rx: Ring,
    tx: Ring,
    event: Ring,
    /// The books of an honest guest.
    received: u32,
    sent: u32,
    host_forwarded: u32,
    arrived: VecDeque<(Header, Vec<u8>)>,
}

impl Guest {
    /// A running device and the host's end of its socket.
    pub(in crate::virtio::vsock) fn new() -> (Self, UnixStream) {
        let (host, agent) = UnixStream::pair().unwrap();
        host.set_read_timeout(Some(PATIENCE)).unwrap();
        host.set_write_timeout(Some(PATIENCE)).unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
        let mut guest = Self {
            memory,
            device: Vsock::new(CID, PORT, agent).unwrap(),
            interrupt: Interrupt::new(EventFd::new(EFD_NONBLOCK).unwrap()),
            rx: Ring::new(0, RX_SIZE),
            tx: Ring::new(1, TX_SIZE),
            event: Ring::new(2, EVENT_QUEUE_SIZE),
            received: 0,
            sent: 0,
            host_forwarded: 0,
            arrived: VecDeque::new(),
        };
        let queues = vec![guest.rx.bound(), guest.tx.bound(), guest.event.bound()];
        guest.start(queues);
        (guest, host)
    }

    /// The same, connected and with buffers posted.
    pub(in crate::virtio::vsock) fn connected() -> (Self, UnixStream) {
        let (mut guest, host) = Self::new();
        guest.post(64, 4096);
        guest.send(Op::Request, b"");
        let (header, _) = guest.expect(Op::Response);
        assert_eq!((header.src_cid, header.src_port), (HOST_CID, PORT));
        assert_eq!((header.dst_cid, header.dst_port), (CID, GUEST_PORT));
        (guest, host)
    }

    pub(in crate::virtio::vsock) fn start(&mut self, queues: Vec<BoundQueue>) {
        let (memory, interrupt) = (self.memory.clone(), self.interrupt.clone());
        self.device.start(Bound { memory, features: 0, queues, interrupt }).unwrap();
    }

    /// Posts `count` receive buffers of `len` bytes.
    pub(in crate::virtio::vsock) fn post(&mut self, count: usize, len: u32) {
        for _ in 0..count {
            self.rx.add(&self.memory, &[len], WRITE);
        }
    }

    pub(in crate::virtio::vsock) fn header(&self, op: Op) -> Header {
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: GUEST_PORT,
            dst_port: PORT,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: GUEST_BUFFER,
            fwd_cnt: self.received,
        }
    }

    pub(in crate::virtio::vsock) fn send(&mut self, op: Op, payload: &[u8]) {
        let header = Header { len: u32::try_from(payload.len()).unwrap(), ..self.header(op) };
        self.send_header(&header, payload);
    }

    pub(in crate::virtio::vsock) fn shut_down(&mut self, flags: u32) {
        self.send_header(&Header { flags, ..self.header(Op::Shutdown) }, b"");
    }

    /// A packet in one descriptor for the header and, if there is any, one for the payload.
    pub(in crate::virtio::vsock) fn send_header(&mut self, header: &Header, payload: &[u8]) {
        self.sent = self.sent.wrapping_add(u32::try_from(payload.len()).unwrap());
        self.send_raw(&[&header.encode(), payload]);
    }

    pub(in crate::virtio::vsock) fn send_raw(&mut self, parts: &[&[u8]]) {
        let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).collect();
        let lengths: Vec<_> = parts.iter().map(|part| u32::try_from(part.len()).unwrap()).collect();
        // The device may be at it as soon as it is offered: write into the slots first.
        for (index, part) in (self.tx.next_descriptor..).zip(&parts) {
            self.memory.write_slice(part, self.tx.slot(index % TX_SIZE)).unwrap();
        }
        self.tx.add(&self.memory, &lengths, 0);
        // The slots are few, so no more than a quarter of them is ever under way.
        self.wait(|guest| {
            while guest.tx.take_used(&guest.memory).is_some() {}
            (guest.tx.available.wrapping_sub(guest.tx.used) < TX_SIZE / 4).then_some(())
        });
    }

    /// Offers a descriptor of the test's own making as a packet.
    pub(in crate::virtio::vsock) fn send_descriptor(&mut self, addr: u64, len: u32, flags: u16) {
        let index = self.tx.next_descriptor;
        self.tx.put(&self.memory, index, Descriptor::new(addr, len, flags, index));
        self.tx.next_descriptor = (index + 1) % TX_SIZE;
        self.tx.offer(&self.memory, index);
    }

    /// Packets the device has not taken yet.
    pub(in crate::virtio::vsock) fn packets_waiting(&mut self) -> u16 {
        while self.tx.take_used(&self.memory).is_some() {}
        self.tx.available.wrapping_sub(self.tx.used)
    }

    /// Receive buffers the device has given back, with packets or not.
    pub(in crate::virtio::vsock) fn used_buffers(&self) -> u16 {
        self.rx.used
    }

    /// Bytes an honest guest may still send.
    pub(in crate::virtio::vsock) fn credit(&self) -> u32 {
        GUEST_BUFFER - self.sent.wrapping_sub(self.host_forwarded)
    }

    /// The next packet, if one is there; its buffer is posted again if `repost`.
    pub(in crate::virtio::vsock) fn try_receive(&mut self, repost: bool) -> Option<(Header, Vec<u8>)> {
        if let Some(packet) = self.arrived.pop_front() {
            return Some(packet);
        }
        loop {
            let (index, written) = self.rx.take_used(&self.memory)?;
            if written == 0 {
                continue;
            }
            let mut bytes = vec![0; written];
            self.memory.read_slice(&mut bytes, self.rx.slot(index)).unwrap();
            if repost {
                self.rx.offer(&self.memory, index);
            }
            let header = Header::parse(bytes.first_chunk::<HEADER_LEN>().unwrap());
            let payload = bytes.split_off(HEADER_LEN);
            assert_eq!(payload.len(), header.len as usize);
            self.received = self.received.wrapping_add(header.len);
            self.host_forwarded = header.fwd_cnt;
            return Some((header, payload));
        }
    }

    pub(in crate::virtio::vsock) fn receive(&mut self) -> (Header, Vec<u8>) {
        self.wait(|guest| guest.try_receive(true))
    }

    /// The next packet, which must be of this kind.
    pub(in crate::virtio::vsock) fn expect(&mut self, op: Op) -> (Header, Vec<u8>) {
        let packet = self.receive();
        assert_eq!(packet.0.op, op);
        packet
    }

    /// Exactly so many bytes of data, in whatever packets.
    pub(in crate::virtio::vsock) fn expect_data(&mut self, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < len {
            all.extend(self.expect(Op::Data).1);
        }
        assert_eq!(all.len(), len);
        all
    }

    /// Nothing comes for long enough that it would have.
    pub(in crate::virtio::vsock) fn expect_silence(&mut self) {
        thread::sleep(Duration::from_millis(50));
        assert_eq!(self.try_receive(true), None);
    }

    pub(in crate::virtio::vsock) fn wait<T>(&mut self, mut ready: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            assert!(Instant::now() < deadline, "the device did not do it in time");
            thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.device.stop();
    }
}
