// SPDX-License-Identifier: Apache-2.0
//! Descriptors and indices made at random: most of them nearly right, for what is quite wrong is found at once.

use crate::contents::Partner;
use crate::driver::{Device, INDIRECT, NEXT, QUEUE_NOTIFY, STATUS, WRITE};
use crate::memory::{ANSWERS, BUFFERS, ELSEWHERE, RAM, WINDOWS, fill, put, ring};
use crate::random::Random;

/// Ticks that a device is left alone with it: a good while for its thread to wake up.
const MOMENT: u64 = 100_000;

const LENGTHS: [u32; 14] =
    [0, 1, 15, 16, 39, 40, 43, 44, 4095, 4096, 0x1_0000, 0x10_0000, 0x8000_0000, u32::MAX];

pub(crate) fn attack(device: &mut Device, random: &mut Random, partner: &mut Partner) {
    partner.ensure(device, random);
    let queue = random.below(device.queues());
    let size = u64::from(device.size(queue));
    let heads = 1 + random.below(6);
    for _ in 0..heads {
        let head = random.below(size) as u16;
        chain(device, random, queue, head);
        let head = if random.once_in(16) { random.half() } else { head };
        device.offer(queue, head);
    }
    if random.once_in(12) {
        let by = random.half();
        device.jump(queue, by);
    }
    if random.once_in(12) {
        indices(device, random, queue);
    }
    let value = if random.once_in(8) { random.pick(&NOTIFIED) } else { queue as u32 };
    device.write(QUEUE_NOTIFY, value);
    device.flush();
    match random.below(4) {
        // With all of that under way.
        0 => device.write(STATUS, random.pick(&[0, 0, 0, 143])),
        1 => (0..8).for_each(|_| race(device, random, queue)),
        _ => drop(device.settle(queue, MOMENT)),
    }
    device.flush();
}

const NOTIFIED: [u32; 10] = [1, 2, 3, 4, 0xff, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX];

/// From `head` on; it may loop, leave the table, or never end.
fn chain(device: &Device, random: &mut Random, queue: u64, head: u16) {
    let size = device.size(queue);
    let mut index = head;
    let len = 1 + random.below(5);
    for n in 0..len {
        let mut flags = 0;
        if n + 1 < len || random.once_in(12) {
            flags |= NEXT;
        }
        if n > 0 && !random.once_in(3) || random.once_in(6) {
            flags |= WRITE;
        }
        if random.once_in(20) {
            flags |= INDIRECT;
        }
        if random.once_in(40) {
            flags = random.half();
        }
        let next = match random.below(24) {
            0 => head,
            1 => size,
            2 => random.half(),
            _ => (index + 1) % size,
        };
        let region = region(device, random, queue);
        if flags & INDIRECT != 0 && region.0 < RAM {
            table(region.0, random);
        }
        device.describe(queue, index, region, (flags, next));
        if next >= size {
            return;
        }
        index = next;
    }
}

/// Where a buffer is, and how long it says it is. Nothing of this kernel's is ever in it.
pub(crate) fn region(device: &Device, random: &mut Random, queue: u64) -> (u64, u32) {
    let len = if random.once_in(4) { random.pick(&LENGTHS) } else { 1 + random.below(8192) as u32 };
    let near = random.below(64);
    let at = match random.below(20) {
        0 => RAM - u64::from(len).min(RAM - ELSEWHERE),
        1 => RAM - u64::from(len).min(RAM - ELSEWHERE) + 1 + near,
        2 => RAM + near,
        3 => WINDOWS + random.below(0x4000),
        4 => random.pick(&[0xfec0_0000, 0xfee0_0000, 0xc000_0000, 0x1_0000_0000, 1 << 63, 1 << 52]),
        5 => u64::MAX - near,
        6 => 0u64.wrapping_sub(u64::from(len)).wrapping_add(near),
        7 => {
            let (table, driver, used) = ring(device.number, queue);
            random.pick(&[table, driver, used]) + near
        }
        8 => random.long() | ELSEWHERE,
        9 => return (near, len % 0x400),
        10 => ELSEWHERE + random.below(RAM - ELSEWHERE),
        11 => ANSWERS + random.below(4096),
        _ => BUFFERS + (random.below(0x8000) & !7),
    };
    (at, len)
}

/// What an indirect descriptor leads to: a table that leads to itself, or on from its last entry.
fn table(at: u64, random: &mut Random) {
    if !(ELSEWHERE..RAM - 64).contains(&at) {
        return;
    }
    for entry in 0..4 {
        let place = at + entry * 16;
        put(place, if random.once_in(2) { at } else { BUFFERS });
        put(place + 8, 64u32);
        put(place + 12, random.pick(&[NEXT, INDIRECT, NEXT | INDIRECT, WRITE | NEXT]));
        put(place + 14, random.below(6) as u16);
    }
}

/// The rings' own fields: flags, event indices, the index backwards, all ones.
fn indices(device: &mut Device, random: &mut Random, queue: u64) {
    let (_, driver, used) = ring(device.number, queue);
    let size = u64::from(device.size(queue));
    match random.below(5) {
        0 => put(driver, random.half()),
        1 => put(driver + 4 + 2 * size, random.half()),
        2 => fill(used, 0xff, 6 + 8 * size as usize),
        3 => device.jump(queue, u16::MAX),
        _ => fill(driver, 0xff, 6 + 2 * size as usize),
    }
}

/// Changes what the device may be looking at.
fn race(device: &mut Device, random: &mut Random, queue: u64) {
    let index = random.below(device.size(queue).into()) as u16;
    let region = region(device, random, queue);
    let flags = random.half() & 7;
    device.describe(queue, index, region, (flags, random.half() & 0xff));
    if random.once_in(3) {
        device.offer(queue, index);
    }
}
