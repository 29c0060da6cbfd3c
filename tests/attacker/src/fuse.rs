// SPDX-License-Identifier: Apache-2.0
//! FUSE requests as bytes: headers that lie, bodies of anything, names that are none.

use crate::memory::{BUFFERS, get, put, put_bytes};
use crate::random::Random;

pub(crate) const HEADER: u32 = 40;
pub(crate) const LOOKUP: u32 = 1;
pub(crate) const GETATTR: u32 = 3;
pub(crate) const INIT: u32 = 26;
const OPEN: u32 = 14;
const READ: u32 = 15;
const GETXATTR: u32 = 22;
const OPENDIR: u32 = 27;
const READDIRPLUS: u32 = 44;
const LSEEK: u32 = 46;

/// Requests that are answered out of the files: those, READLINK, STATFS, LISTXATTR, READDIR.
pub(crate) const SERVED: [u32; 12] =
    [LOOKUP, GETATTR, 5, OPEN, READ, 17, GETXATTR, 23, OPENDIR, 28, READDIRPLUS, LSEEK];

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

/// What a kernel says first: `flags` are what it can do.
pub(crate) fn init(at: u64, flags: u32) -> u32 {
    let len = HEADER + 64;
    header(at, len, INIT, 0);
    for (place, value) in [(40, 7u32), (44, 38), (48, 0x2_0000), (52, flags)] {
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

/// A request that lies ready.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) at: u64,
    pub(crate) len: u32,
    pub(crate) opcode: u32,
    /// It has the form it should; what it asks for may be anything.
    pub(crate) is_sound: bool,
}

/// A request in the buffer `slot`. `files` are nodes that have contents.
pub(crate) fn any(random: &mut Random, slot: u64, files: &[u64]) -> Request {
    let at = BUFFERS + slot * 0x2000;
    match random.below(16) {
        0 => {
            let flags = random.word();
            let len = init(at, random.pick(&[u32::MAX, 0, flags]));
            Request { at, len, opcode: INIT, is_sound: true }
        }
        1..10 => sound(random, at, files),
        _ => crooked(random, at),
    }
}

/// Gets as far as the files, whichever node, offset, size or handle it names.
fn sound(random: &mut Random, at: u64, files: &[u64]) -> Request {
    let opcode = if random.once_in(4) { READ } else { random.pick(&SERVED) };
    let is_of_files = [READ, LSEEK, OPEN].contains(&opcode) && !files.is_empty();
    let node = if is_of_files && !random.once_in(3) { random.pick(files) } else { node(random) };
    let len = match opcode {
        LOOKUP => named(at, opcode, node, 0, random.pick(&FOUND)),
        GETXATTR => named(at, opcode, node, 8, random.pick(&ATTRIBUTES)),
        _ => {
            header(at, HEADER + 40, opcode, node);
            let (handle, flags) = (random.long(), random.word());
            // Of OPEN it is the flags, of LISTXATTR the size.
            let small = if opcode == OPEN { 0 } else { random.pick(&[0, 0, 16, 4096]) };
            put(at + 40, if random.once_in(4) { handle } else { small });
            put(at + 48, if random.once_in(2) { random.below(256) << 12 } else { random.pick(&OFFSETS) });
            let size = if opcode == LSEEK { 3 + random.below(2) as u32 } else { random.pick(&SIZES) };
            put(at + 56, size);
            put(at + 60, flags);
            put(at + 64, handle);
            put(at + 72, 0u64);
            HEADER + 40
        }
    };
    Request { at, len, opcode, is_sound: true }
}

/// Mostly one there is.
fn node(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.pick(&[0, u64::MAX, 1 << 63, 0xffff_ffff]),
        1 => random.long(),
        2 => 1 << 32 | random.below(64),
        3 => random.below(4096),
        4 => 1,
        _ => random.below(64),
    }
}

/// Anything may be wrong with it.
fn crooked(random: &mut Random, at: u64) -> Request {
    let opcode = match random.below(8) {
        0 => INIT,
        1 => random.pick(&SERVED),
        2 => random.pick(&CHANGING),
        3 => random.word(),
        _ => random.below(56) as u32,
    };
    let mut body = [0; 128];
    random.bytes(&mut body);
    if random.once_in(2) {
        // Offsets and sizes that are nearly right.
        body[..8].fill(0);
        body[8..16].copy_from_slice(&random.pick(&OFFSETS).to_le_bytes());
        body[16..20].copy_from_slice(&random.pick(&SIZES).to_le_bytes());
    }
    let len = match random.below(4) {
        0 => random.below(128) as u32,
        1 => 40,
        2 => 128,
        _ => 24,
    };
    let real = HEADER + len;
    let said = if random.once_in(6) { random.word() } else { real };
    header(at, said, opcode, node(random));
    put_bytes(at + u64::from(HEADER), &body[..len as usize]);
    if random.once_in(4) {
        let name = random.pick(&NAMES);
        put_bytes(at + u64::from(HEADER), name);
    }
    if random.once_in(10) {
        put(at + 36, random.half());
    }
    let len = if random.once_in(12) { random.below(u64::from(real)) as u32 + 1 } else { real };
    Request { at, len, opcode, is_sound: false }
}

const SIZES: [u32; 6] = [0, 1, 4096, 0x1_0000, 0x10_0000, u32::MAX];
const OFFSETS: [u64; 7] = [0, 1, 4096, 1 << 31, 1 << 63, u64::MAX, u64::MAX - 4095];

/// Names as there might be.
const FOUND: [&[u8]; 6] = [b"bin\0", b"etc\0", b"busybox\0", b"agent\0", b"x\0", b"..x\0"];
const ATTRIBUTES: [&[u8]; 3] = [b"security.capability\0", b"user.x\0", b"x\0"];

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
