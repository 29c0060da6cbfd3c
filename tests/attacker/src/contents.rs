// SPDX-License-Identifier: Apache-2.0
//! Chains that are sound and hold what is not, for each kind of device; and one honest request, which every device must
//! answer after whatever was done to it.

use crate::driver::{Device, NEXT, QUEUE_NOTIFY, RNG, VSOCK, WRITE};
use crate::fuse;
use crate::memory::{ANSWERS, BUFFERS, ELSEWHERE, get};
use crate::packets::{self, Packet, REQUEST};
use crate::port::tell;
use crate::random::Random;

/// Ticks that chains may take that are sound in themselves.
const WHILE: u64 = 2_000_000;
const RX: u64 = 0;
const TX: u64 = 1;

/// Several at once. `connection` is the agent's port, if it is connected.
pub(crate) fn attack(device: &mut Device, random: &mut Random, connection: Option<u32>) {
    device.ensure_running();
    match device.number {
        VSOCK => packets(device, random, connection),
        RNG => entropy(device, random),
        _ => requests(device, random),
    }
}

/// Not always: the next chains may as well come while these are looked at.
fn wait(device: &mut Device, random: &mut Random, queue: u64) {
    if random.once_in(6) || device.is_half_full(queue) {
        device.settle(queue, WHILE);
    }
}

fn requests(device: &mut Device, random: &mut Random) {
    let queue = random.below(2);
    let count = 1 + random.below(6);
    for slot in 0..count {
        let request = fuse::any(random, slot);
        let head = slot as u16 * 8;
        let room = random.pick(&[0x1000, 0x1000, 16, 17, 15, 8, 1, 160, 0x2_0000, 0x10_0000]);
        if random.once_in(10) {
            device.describe(queue, head, request, (0, 0));
        } else {
            device.request(queue, head, request, (ANSWERS + slot * 0x2_0000, room));
        }
        device.offer(queue, head);
    }
    device.kick(queue);
    wait(device, random, queue);
}

fn entropy(device: &mut Device, random: &mut Random) {
    for head in 0..1 + random.below(3) as u16 {
        let len = random.pick(&[1, 64, 4095, 4096, 4097, 0x10_0000, 0x1b0_0000]);
        device.describe(0, head, (ELSEWHERE, len), (WRITE, 0));
        device.offer(0, head);
    }
    device.kick(0);
    wait(device, random, 0);
}

fn packets(device: &mut Device, random: &mut Random, connection: Option<u32>) {
    if random.once_in(2) {
        // Mostly enough for an answer.
        let size = device.size(RX);
        let len = random.pick(&[4096, 4096, 44, 43, 45, 1]);
        for n in 0..random.below(u64::from(size)) as u16 {
            device.describe(RX, n, (ANSWERS + u64::from(n) * 0x1000, len), (WRITE, 0));
            device.offer(RX, n);
        }
        device.kick(RX);
    }
    for slot in 0..1 + random.below(8) {
        let packet = match connection {
            Some(port) if random.once_in(2) => packets::on_connection(random, slot, port),
            _ => packets::any(random, slot),
        };
        let (head, half) = (slot as u16 * 4, packet.1 / 2);
        if half > 0 && random.once_in(3) {
            // A header in two pieces.
            device.describe(TX, head, (packet.0, half), (NEXT, head + 1));
            device.describe(TX, head + 1, (packet.0 + u64::from(half), packet.1 - half), (0, 0));
        } else {
            device.describe(TX, head, packet, (0, 0));
        }
        device.offer(TX, head);
    }
    device.kick(TX);
    wait(device, random, TX);
}

/// Whether a device that is started anew does what it is for.
pub(crate) fn serves(device: &mut Device) -> bool {
    device.start();
    match device.number {
        VSOCK => answers_packet(device),
        RNG => {
            device.describe(0, 0, (ANSWERS, 64), (WRITE, 0));
            device.offer(0, 0);
            device.kick(0);
            device.answer(0) == Some((0, 64))
        }
        _ => {
            let len = fuse::init(BUFFERS);
            device.request(1, 0, (BUFFERS, len), (ANSWERS, 0x1000));
            device.offer(1, 0);
            device.kick(1);
            device.answer(1) == Some((0, 80)) && fuse::error(ANSWERS) == 0
        }
    }
}

/// Whether a packet to nobody is taken, and refused.
fn answers_packet(device: &mut Device) -> bool {
    let size = device.size(RX);
    for n in 0..size {
        device.describe(RX, n, (ANSWERS + u64::from(n) * 0x1000, 4096), (WRITE, 0));
        device.offer(RX, n);
    }
    let mut packet = Packet::agents(99, REQUEST);
    packet.to.1 = 5;
    packet.put(BUFFERS);
    device.describe(TX, 0, (BUFFERS, packets::HEADER), (0, 0));
    device.offer(TX, 0);
    device.write(QUEUE_NOTIFY, RX as u32);
    device.kick(TX);
    if device.answer(TX) != Some((0, 0)) {
        tell!("the packet is not taken");
        return false;
    }
    // Refusals of an earlier life may come first, as many as there are buffers.
    while let Some((head, len)) = device.answer(RX) {
        let at = ANSWERS + u64::from(head) * 0x1000;
        if len == packets::HEADER && get::<u32>(at + 20) == 99 && get::<u16>(at + 30) == packets::RESET {
            return true;
        }
        device.offer(RX, head);
        device.kick(RX);
    }
    tell!("the packet is not refused");
    false
}

/// After `after_the_start`: the rings it was started with are still its rings.
pub(crate) fn still_serves(device: &mut Device, number: u64) -> u32 {
    let works = match device.number {
        RNG => {
            device.describe(0, 0, (ANSWERS, 32), (WRITE, 0));
            device.offer(0, 0);
            device.kick(0);
            device.answer(0) == Some((0, 32))
        }
        VSOCK => answers_packet(device),
        _ => {
            fuse::header(BUFFERS, fuse::HEADER, 3, 1);
            device.request(1, 0, (BUFFERS, fuse::HEADER), (ANSWERS, 0x1000));
            device.offer(1, 0);
            device.kick(1);
            device.answer(1).is_some_and(|(head, len)| head == 0 && len >= 16)
        }
    };
    if !works {
        tell!("odd: sequence ", number, ": a running device lost its rings");
    }
    u32::from(!works)
}
