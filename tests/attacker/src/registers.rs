// SPDX-License-Identifier: Apache-2.0
//! Any value into any register, in each state a device can be in.

use crate::driver::{
    DRIVER_FEATURES, DRIVER_FEATURES_SEL, Device, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NOTIFY,
    QUEUE_NUM, QUEUE_READY, QUEUE_SEL, RUNNING, STAGES, STATUS,
};
use crate::memory::{ELSEWHERE, RAM, WINDOWS, read_now, write_now};
use crate::random::Random;

/// What a driver says of its queues and of what it can do; and the upper halves of addresses.
const SETTINGS: [u64; 11] = [
    DRIVER_FEATURES_SEL,
    DRIVER_FEATURES,
    QUEUE_SEL,
    QUEUE_NUM,
    QUEUE_READY,
    QUEUE_DESC,
    QUEUE_DESC + 4,
    QUEUE_DRIVER,
    QUEUE_DRIVER + 4,
    QUEUE_DEVICE,
    QUEUE_DEVICE + 4,
];
/// What else means something when it is written: the device features' selector, and the interrupts' acknowledgement too.
const OTHERS: [u64; 4] = [0x014, QUEUE_NOTIFY, 0x064, STATUS];
const STATUSES: [u32; 12] = [0, 1, 2, 3, 4, 7, 11, 15, 64, 79, 128, 143];

/// A state, some writes, a kick.
pub(crate) fn attack(device: &mut Device, random: &mut Random) {
    device.reach(random.pick(&STAGES), random.once_in(2));
    if random.once_in(8) {
        odd_widths(device, random);
    }
    for _ in 0..=random.below(8) {
        let register = match random.below(10) {
            0 => random.below(0x1000) & !3,
            1..4 => random.pick(&OTHERS),
            _ => random.pick(&SETTINGS),
        };
        let value = value(device, random, register);
        device.write(register, value);
    }
    if random.once_in(2) {
        let queue = random.below(device.queues());
        device.kick(queue);
    }
    device.flush();
    device.distrust();
}

/// A device that was just started with what is sound must work on with it, whatever its registers are told then.
pub(crate) fn after_the_start(device: &mut Device, random: &mut Random) {
    for _ in 0..=random.below(6) {
        let register = random.pick(&SETTINGS);
        let value = value(device, random, register);
        device.write(register, value);
    }
    let status = random.pick(&[1, 3, 7, 11, RUNNING, 79, 0x100, u32::MAX]);
    device.write(STATUS, status);
    device.flush();
}

fn value(device: &Device, random: &mut Random, register: u64) -> u32 {
    let any = match random.below(8) {
        0 => 0,
        1 => 1,
        2 => u32::MAX,
        3 => random.word() | 1,
        4 => 1 << random.below(32),
        5 => (1u32 << random.below(32)).wrapping_sub(1),
        6 => random.below(512) as u32,
        _ => random.word(),
    };
    match register {
        STATUS if !random.once_in(4) => random.pick(&STATUSES),
        QUEUE_SEL if !random.once_in(4) => random.below(device.queues() + 1) as u32,
        QUEUE_NUM if random.once_in(2) => 1 << random.below(17),
        QUEUE_READY if random.once_in(2) => 1,
        QUEUE_DESC | QUEUE_DRIVER | QUEUE_DEVICE => harmless(address(random, any)),
        0x084 | 0x094 | 0x0a4 if random.once_in(2) => 0,
        _ => any,
    }
}

/// Where a ring must not be, or may be but was not.
fn address(random: &mut Random, any: u32) -> u32 {
    let near = random.pick(&[0u32, 1, 2, 4, 8, 16, 4096]);
    let base = match random.below(8) {
        0 => any,
        1 => RAM as u32,
        2 => WINDOWS as u32,
        3 => 0xfec0_0000,
        4 => 0,
        5 => 0x8000_0000,
        _ => (ELSEWHERE + random.below(1 << 20)) as u32,
    };
    base.wrapping_sub(near)
}

/// A device may write to what it believes to be a ring: not to this kernel.
fn harmless(address: u32) -> u32 {
    if (0x400..ELSEWHERE as u32).contains(&address) { address | ELSEWHERE as u32 } else { address }
}

/// A byte, two, eight, at any place: also across the end of the window.
fn odd_widths(device: &mut Device, random: &mut Random) {
    device.flush();
    let at = device.window() + random.below(0x1000);
    let value = random.long();
    match random.below(6) {
        0 => write_now(at, value as u8),
        1 => write_now(at, value as u16),
        2 => write_now(at, value),
        3 => drop(read_now::<u8>(at)),
        4 => drop(read_now::<u16>(at)),
        _ => drop(read_now::<u64>(at)),
    }
}
