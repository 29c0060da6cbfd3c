// SPDX-License-Identifier: Apache-2.0
//! Shapes of chains and rings made by hand: each once a queue, each on a device that was just started.
//!
//! A shape is either refused (the device asks for a reset and is deaf until it gets one) or, where it is sound but useless,
//! given back. Both are fine; what is not is silence without a status, or an answer longer than there is room for it.

use crate::driver::{Device, INDIRECT, NEXT, RUNNING, STATUS, VSOCK, WRITE};
use crate::memory::{ANSWERS, BUFFERS, ELSEWHERE, RAM, WINDOWS, put, ring};
use crate::packets::{HEADER, Packet, REQUEST, RX, TX};
use crate::port::{clock, tell};

/// A descriptor: address, length, flags, next.
type Descriptor = (u64, u32, u16, u16);

/// What is expected of the device.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Refused,
    /// It may be sound for this kind of device.
    Either,
}
use Expected::{Either, Refused};

/// Chains from descriptor 0 on; an index of `SIZE` is the ring's length.
const SIZE: u16 = 0xfff0;
const LAST: u16 = 0xfff1;
const CHAINS: [(&str, Expected, &[Descriptor]); 32] = [
    ("a loop of one", Refused, &[(BUFFERS, 8, NEXT, 0)]),
    ("a loop of two", Refused, &[(BUFFERS, 8, NEXT, 1), (BUFFERS, 8, NEXT, 0)]),
    ("a loop behind a head", Refused, &[(BUFFERS, 8, NEXT, 1), (BUFFERS, 8, NEXT, 2), (BUFFERS, 8, NEXT, 1)]),
    ("a loop of writable ones", Refused, &[(BUFFERS, 8, NEXT | WRITE, 0)]),
    ("next is the ring's length", Refused, &[(BUFFERS, 8, NEXT, SIZE)]),
    ("next is far away", Refused, &[(BUFFERS, 8, NEXT, u16::MAX)]),
    ("no bytes to read", Refused, &[(BUFFERS, 0, 0, 0)]),
    ("no bytes to write", Refused, &[(BUFFERS, 0, WRITE, 0)]),
    ("no bytes in the middle", Refused, &[(BUFFERS, 8, NEXT, 1), (BUFFERS, 0, NEXT, 2), (BUFFERS, 8, 0, 0)]),
    ("readable behind writable", Refused, &[(ANSWERS, 8, NEXT | WRITE, 1), (BUFFERS, 8, 0, 0)]),
    ("one byte beyond memory", Refused, &[(RAM, 1, 0, 0)]),
    ("across the end of memory", Refused, &[(RAM - 8, 16, 0, 0)]),
    ("up to the end of memory", Either, &[(RAM - 64, 64, 0, 0)]),
    ("the last byte of memory", Either, &[(RAM - 1, 1, WRITE, 0)]),
    ("in the hole", Refused, &[(0xc000_0000, 64, 0, 0)]),
    ("in its own window", Refused, &[(WINDOWS, 0x1000, WRITE, 0)]),
    ("in the interrupt controller", Refused, &[(0xfec0_0000, 16, WRITE, 0)]),
    ("in the processor's own", Refused, &[(0xfee0_0000, 16, WRITE, 0)]),
    ("behind the hole", Refused, &[(0x1_0000_0000, 64, WRITE, 0)]),
    ("the last address", Refused, &[(u64::MAX, 1, WRITE, 0)]),
    ("around the last address", Refused, &[(u64::MAX - 7, 64, WRITE, 0)]),
    ("4 GiB less one from the front", Refused, &[(ELSEWHERE, u32::MAX, WRITE, 0)]),
    ("4 GiB less one to around zero", Refused, &[(0u64.wrapping_sub(u32::MAX as u64), u32::MAX, 0, 0)]),
    ("4 GiB in two halves", Refused, &[(ELSEWHERE, 1 << 31, NEXT, 1), (ELSEWHERE, 1 << 31, 0, 0)]),
    ("an indirect table", Refused, &[(ELSEWHERE, 64, INDIRECT, 0)]),
    ("an indirect table of no bytes", Refused, &[(ELSEWHERE, 0, INDIRECT, 0)]),
    ("an indirect table with a next", Refused, &[(ELSEWHERE, 64, INDIRECT | NEXT, 1), (BUFFERS, 8, 0, 0)]),
    ("an indirect table to write to", Refused, &[(ELSEWHERE, 64, INDIRECT | WRITE, 0)]),
    ("an indirect table outside", Refused, &[(u64::MAX - 15, 16, INDIRECT, 0)]),
    ("flags nobody knows", Either, &[(BUFFERS, 8, 0xfff8, 0)]),
    ("one byte to read", Either, &[(BUFFERS, 1, 0, 0)]),
    ("one byte to write", Either, &[(ANSWERS, 1, WRITE, 0)]),
];

/// What is done to a ring as a whole.
#[derive(Debug, Clone, Copy)]
enum RingShape {
    /// The index says so many more than there are.
    Ahead(u16),
    Head(u16),
    /// Chains as many as the ring holds, all with the same head.
    Same,
    /// Buffers that are the ring itself.
    OnTable,
    OnOffered,
    OnUsed,
    /// As many descriptors as there are, and then the first again.
    FullLoop,
    /// Buffers of 64 KiB, so many that they overlap.
    Overlapping,
}
use RingShape::{Ahead, FullLoop, Head, OnOffered, OnTable, OnUsed, Overlapping, Same};

const RINGS: [(&str, Expected, RingShape); 16] = [
    ("an index ahead by more than the ring", Refused, Ahead(300)),
    ("an index ahead by 65535", Refused, Ahead(u16::MAX)),
    ("an index ahead by 32768", Refused, Ahead(0x8000)),
    ("an index ahead by the ring and one", Refused, Ahead(SIZE)),
    ("an index ahead by the ring", Either, Ahead(LAST)),
    ("an index ahead by one", Either, Ahead(1)),
    ("a head of the ring's length", Refused, Head(SIZE)),
    ("a head of 65535", Refused, Head(u16::MAX)),
    ("a head of 32768", Refused, Head(0x8000)),
    ("the same chain in every place", Either, Same),
    ("a buffer on the descriptors", Either, OnTable),
    ("a buffer on what is offered", Either, OnOffered),
    ("a buffer on what was used", Either, OnUsed),
    ("a loop through the whole table", Refused, FullLoop),
    ("buffers one over the other", Either, Overlapping),
    ("an index ahead by 257", Refused, Ahead(257)),
];

/// What came of them.
#[derive(Debug, Default)]
struct Tried {
    shapes: u32,
    refused: u32,
    odd: u32,
}

/// All shapes on each queue that anything is ever done with: nothing is for a socket device's queue of events.
pub(crate) fn run(number: u64) {
    let mut device = Device::new(number);
    let mut tried = Tried::default();
    for queue in 0..device.queues().min(2) {
        for (name, expected, chain) in CHAINS {
            device.start();
            describe(&mut device, queue, chain);
            device.offer(queue, 0);
            tried.note(judge(&mut device, queue, (name, expected)));
        }
        for (name, expected, shape) in RINGS {
            device.start();
            arrange(&mut device, queue, shape);
            tried.note(judge(&mut device, queue, (name, expected)));
        }
    }
    tried.odd += leave_broken(&mut device);
    tell!("done shapes ", tried.shapes, " refused ", tried.refused, " odd ", tried.odd);
}

impl Tried {
    fn note(&mut self, outcome: Outcome) {
        self.shapes += 1;
        self.refused += u32::from(outcome == Outcome::Refused);
        self.odd += u32::from(outcome == Outcome::Odd);
    }
}

/// Leaves the device with a loop that it refused, and without the reset that it asks for: it must be quiet like that.
pub(crate) fn leave_broken(device: &mut Device) -> u32 {
    let queue = u64::from(device.queues() > 1);
    device.start();
    describe(device, queue, &[(BUFFERS, 8, NEXT, 0)]);
    device.offer(queue, 0);
    let outcome = judge(device, queue, ("a loop", Refused));
    device.kick(queue);
    u32::from(outcome == Outcome::Odd)
}

fn describe(device: &mut Device, queue: u64, chain: &[Descriptor]) {
    // An indirect table, if it comes to that, that leads to itself.
    for entry in 0..4 {
        put(ELSEWHERE + entry * 16, ELSEWHERE);
        put(ELSEWHERE + entry * 16 + 8, 64u32);
        put(ELSEWHERE + entry * 16 + 12, INDIRECT | NEXT);
        put(ELSEWHERE + entry * 16 + 14, 0u16);
    }
    put(BUFFERS, 0u64);
    for ((at, len, flags, next), index) in chain.iter().zip(0..) {
        let next = number_of(device, queue, *next);
        device.describe(queue, index, (*at, *len), (*flags, next));
    }
}

fn number_of(device: &Device, queue: u64, number: u16) -> u16 {
    match number {
        SIZE => device.size(queue),
        LAST => device.size(queue) - 1,
        other => other,
    }
}

fn arrange(device: &mut Device, queue: u64, shape: RingShape) {
    let size = device.size(queue);
    let (table, driver, used) = ring(device.number, queue);
    let whole = |device: &mut Device, at: u64| {
        device.describe(queue, 0, (at, 16 * u32::from(size)), (WRITE, 0));
        device.offer(queue, 0);
    };
    match shape {
        Ahead(by) => {
            (0..size).for_each(|index| device.describe(queue, index, (ANSWERS, 64), (WRITE, 0)));
            let by = if by == SIZE { size + 1 } else { number_of(device, queue, by) };
            device.jump(queue, by);
        }
        Head(head) => device.offer(queue, number_of(device, queue, head)),
        Same => {
            device.describe(queue, 0, (ANSWERS, 64), (WRITE, 0));
            (0..size).for_each(|_| device.offer(queue, 0));
        }
        OnTable => whole(device, table),
        OnOffered => whole(device, driver),
        OnUsed => whole(device, used),
        FullLoop => {
            (0..size)
                .for_each(|index| device.describe(queue, index, (BUFFERS, 1), (NEXT, (index + 1) % size)));
            device.offer(queue, 0);
        }
        Overlapping => {
            for index in 0..size {
                device.describe(queue, index, (ANSWERS + u64::from(index), 0x1_0000), (WRITE, 0));
                device.offer(queue, index);
            }
        }
    }
}

/// Some milliseconds, for a device that has to find its thread.
const PATIENCE: u64 = 400_000_000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Refused,
    GivenBack,
    /// Not as expected.
    Odd,
}

/// Kicks, and waits until the device has answered or asked for a reset.
fn judge(device: &mut Device, queue: u64, (name, expected): (&str, Expected)) -> Outcome {
    if device.number == VSOCK && queue == RX {
        // Buffers for packets are not looked at before there is one.
        provoke(device);
    }
    device.kick(queue);
    let from = clock();
    loop {
        if device.read(STATUS) != RUNNING {
            return Outcome::Refused;
        }
        if device.take_used(queue) > 0 {
            if expected == Either {
                return Outcome::GivenBack;
            }
            tell!("odd: device ", device.number, " queue ", queue, " took ", name);
            return Outcome::Odd;
        }
        if clock().wrapping_sub(from) > PATIENCE {
            tell!("odd: device ", device.number, " queue ", queue, " says nothing to ", name);
            return Outcome::Odd;
        }
    }
}

/// Has the socket device owe the guest a packet: a refusal of one to nobody.
fn provoke(device: &mut Device) {
    // Where no shape has anything.
    const AT: u64 = BUFFERS + 0x8000;
    let mut packet = Packet::agents(99, REQUEST);
    packet.to.1 = 5;
    packet.put(AT);
    device.describe(TX, 0, (AT, HEADER), (0, 0));
    device.offer(TX, 0);
    device.kick(TX);
}
