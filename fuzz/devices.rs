// SPDX-License-Identifier: Apache-2.0
//! Registers and rings of each device: any order of register writes, any chain, any lie about the rings. The device ends
//! in a state from which a reset makes it new.

use crate::machine::{BUFFERS, BUFFERS_END, Buffer, Machine};
use crate::{fuse, index};
use arbitrary::{Arbitrary, Unstructured};
use isopod_devices::virtio::VirtioDevice;
use isopod_devices::virtio::conformance::driver::registers;
use isopod_devices::virtio::fs::Fs;
use isopod_devices::virtio::rng::Rng;
use isopod_devices::virtio::transport::mmio::QUEUE_NOTIFY;
use isopod_devices::virtio::vsock::Vsock;
use std::os::unix::net::UnixStream;

/// More than this in one script finds nothing that two scripts would not.
const MAX_STEPS: usize = 100;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// Most drivers begin by setting the device up.
    skips_set_up: Option<bool>,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    SetUp,
    Reset,
    Register { which: u8, value: Value },
    Write { offset: u16, bytes: &'a [u8] },
    Read { offset: u16, len: u8 },
    Memory { at: u16, bytes: &'a [u8] },
    Chain { queue: u8, buffers: Vec<Part> },
    Descriptor { queue: u8, index: u8, addr: Place, len: u32, flags: u16, next: u8 },
    Offer { queue: u8, head: u16 },
    Available { queue: u8, index: u16 },
    Kick { queue: u32 },
    Settle { queue: u8 },
}

#[derive(Debug, Arbitrary)]
enum Value {
    Small(u8),
    Bit(u8),
    Page(u8),
    Any(u32),
}

#[derive(Debug, Arbitrary)]
enum Place {
    Buffer(u16),
    Low(u16),
    End(u8),
    Any(u64),
}

#[derive(Debug, Arbitrary)]
struct Part {
    place: u16,
    len: u16,
    is_writable: bool,
}

pub(crate) fn fs(bytes: &[u8]) {
    let files = fuse::files(index::small()).expect("a good table");
    run(bytes, Fs::new("image", files));
}

pub(crate) fn rng(bytes: &[u8]) {
    run(bytes, Rng::new());
}

pub(crate) fn vsock(bytes: &[u8]) {
    let (_host, agent) = UnixStream::pair().expect("a pair of sockets");
    run(bytes, Vsock::new(3, 1024, agent).expect("a socket can be told not to block"));
}

fn run(bytes: &[u8], device: impl VirtioDevice + 'static) {
    let Ok(input) = Unstructured::new(bytes).arbitrary::<Input<'_>>() else {
        return;
    };
    let mut machine = Machine::new(device);
    if input.skips_set_up != Some(true) {
        machine.set_up();
    }
    for step in input.steps.iter().take(MAX_STEPS) {
        take(&mut machine, step);
    }
    machine.end();
}

fn take(machine: &mut Machine, step: &Step<'_>) {
    match step {
        Step::SetUp => machine.set_up(),
        Step::Reset => machine.reset(),
        Step::Register { which, value } => machine.driver.write(register(*which), number(value)),
        Step::Write { offset, bytes } => {
            machine.driver.transport.write(u64::from(offset % 0x1000), &bytes[..bytes.len().min(8)]);
        }
        Step::Read { offset, len } => {
            let mut data = [0xff; 16];
            machine.driver.transport.read(u64::from(offset % 0x1000), &mut data[..usize::from(len % 16)]);
        }
        Step::Memory { at, bytes } => machine.poke(buffer(*at), bytes),
        Step::Chain { queue, buffers } => {
            let buffers: Vec<_> = buffers.iter().map(Part::buffer).collect();
            machine.add(machine.queue(*queue), &buffers);
        }
        Step::Descriptor { queue, index, addr, len, flags, next } => {
            let (queue, index) = (machine.queue(*queue), u16::from(*index));
            machine.driver.describe(queue, index, (place(addr), *len), (*flags, u16::from(*next)));
        }
        Step::Offer { queue, head } => machine.offer(machine.queue(*queue), *head),
        Step::Available { queue, index } => machine.set_available(machine.queue(*queue), *index),
        Step::Kick { queue } => machine.driver.write(QUEUE_NOTIFY, *queue),
        Step::Settle { queue } => machine.settle(machine.queue(*queue)),
    }
}

impl Part {
    fn buffer(&self) -> Buffer {
        Buffer { addr: buffer(self.place), len: u32::from(self.len), is_writable: self.is_writable }
    }
}

/// The registers that set something in motion.
fn register(which: u8) -> u64 {
    const OTHERS: [u64; 6] = [
        registers::STATUS,
        registers::QUEUE_SEL,
        QUEUE_NOTIFY,
        registers::DRIVER_FEATURES,
        registers::DRIVER_FEATURES_SEL,
        registers::INTERRUPT_ACK,
    ];
    let all = OTHERS.len() + registers::OF_A_QUEUE.len();
    let n = usize::from(which) % all;
    OTHERS.get(n).copied().unwrap_or_else(|| registers::OF_A_QUEUE[n - OTHERS.len()])
}

fn number(value: &Value) -> u32 {
    match value {
        Value::Small(n) => u32::from(*n),
        Value::Bit(n) => 1 << (n % 32),
        Value::Page(n) => u32::from(*n) << 12,
        Value::Any(n) => *n,
    }
}

fn place(place: &Place) -> u64 {
    match place {
        Place::Buffer(n) => buffer(*n),
        Place::Low(at) => u64::from(*at),
        Place::End(n) => BUFFERS_END - u64::from(*n),
        Place::Any(at) => *at,
    }
}

/// An address among the buffers.
fn buffer(n: u16) -> u64 {
    BUFFERS + u64::from(n) * 8
}
