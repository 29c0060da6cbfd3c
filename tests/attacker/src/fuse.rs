// SPDX-License-Identifier: Apache-2.0
//! FUSE requests as bytes: headers that lie, bodies of anything, names that are none.

use crate::memory::{BUFFERS, get, put, put_bytes};
use crate::random::Random;

pub(crate) const HEADER: u32 = 40;
pub(crate) const LOOKUP: u32 = 1;
const READ: u32 = 15;
const INIT: u32 = 26;
const READDIRPLUS: u32 = 44;

/// Requests that change something, in a file system that never changes.
pub(crate) const CHANGING: [u32; 16] = [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51];

pub(crate) fn header(at: u64, len: u32, opcode: u32, node: u64) {
    put(at, len);
    put(at + 4, opcode);
    put(at + 8, at);
    put(at + 16, node);
    // User, group, process, and no extensions.
    put(at + 24, 0u64);
    put(at + 32, 0u64);
}

/// What a kernel says first.
pub(crate) fn init(at: u64) -> u32 {
    let len = HEADER + 64;
    header(at, len, INIT, 0);
    for (place, value) in [(40, 7u32), (44, 38), (48, 0x2_0000), (52, u32::MAX)] {
        put(at + place, value);
    }
    (56..104).step_by(8).for_each(|place| put(at + place, 0u64));
    len
}

pub(crate) fn named(at: u64, opcode: u32, node: u64, front: u32, name: &[u8]) -> u32 {
    let len = HEADER + front + name.len() as u32;
    header(at, len, opcode, node);
    (0..front).for_each(|byte| put(at + u64::from(HEADER + byte), 0u8));
    put_bytes(at + u64::from(HEADER + front), name);
    len
}

/// A request in the buffer `slot`; gives where it is and how long.
pub(crate) fn any(random: &mut Random, slot: u64) -> (u64, u32) {
    let at = BUFFERS + slot * 0x2000;
    let opcode = match random.below(12) {
        0 => INIT,
        1 => READ,
        2 => READDIRPLUS,
        3 => random.pick(&CHANGING),
        4 => random.word(),
        _ => random.below(56) as u32,
    };
    let node = match random.below(6) {
        0 => 0,
        1 => 1,
        2 => random.long(),
        3 => u64::MAX,
        _ => random.below(64),
    };
    let mut body = [0; 128];
    random.bytes(&mut body);
    if random.once_in(2) {
        // Offsets and sizes that are nearly right.
        body[..8].fill(0);
        body[8..16].copy_from_slice(&random.pick(&OFFSETS).to_le_bytes());
        body[16..20].copy_from_slice(&random.pick(&[0, 1, 4096, 0x10_0000, u32::MAX]).to_le_bytes());
    }
    let len = match random.below(4) {
        0 => random.below(128) as u32,
        1 => 40,
        2 => 128,
        _ => 24,
    };
    let real = HEADER + len;
    let said = if random.once_in(6) { random.word() } else { real };
    header(at, said, opcode, node);
    put_bytes(at + u64::from(HEADER), &body[..len as usize]);
    if random.once_in(4) {
        let name = random.pick(&NAMES);
        put_bytes(at + u64::from(HEADER), name);
    }
    if random.once_in(10) {
        put(at + 36, random.half());
    }
    (at, if random.once_in(12) { random.below(u64::from(real)) as u32 + 1 } else { real })
}

const OFFSETS: [u64; 7] = [0, 1, 4096, 1 << 31, 1 << 63, u64::MAX, u64::MAX - 4095];

/// Names that lead elsewhere, or are none.
pub(crate) const NAMES: [&[u8]; 18] = [
    b"..\0",
    b".\0",
    b"\0",
    b"",
    b"/\0",
    b"/etc/passwd\0",
    b"../x\0",
    b"../../etc/passwd\0",
    b"a/b\0",
    b"a/\0",
    b"/..\0",
    b"./.\0",
    b"no end",
    b"in the\0middle\0",
    b"..\0..\0",
    b"\0\0",
    b"\xff\xfe/\x80\0",
    b"proc/self/root\0",
];

/// The error an answer carries; it is not positive.
pub(crate) fn error(answer: u64) -> i32 {
    get::<u32>(answer + 4) as i32
}
