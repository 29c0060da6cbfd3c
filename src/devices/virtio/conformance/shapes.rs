// SPDX-License-Identifier: Apache-2.0
//! Chains a driver must not make, and a few odd ones it may.

use super::driver::{BUFFERS, Driver, HIGH_END, HIGH_START, INDIRECT, LOW_END, NEXT, WRITE};

/// What becomes of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The device gave it back, with or without an answer.
    Used,
    /// The device will not go on with this ring.
    NeedsReset,
}

#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub lay: fn(&mut Driver, usize),
    pub verdict: Verdict,
}

/// One descriptor, at index 0.
fn one(driver: &mut Driver, queue: usize, buffer: (u64, u32), flags: u16) {
    driver.describe(queue, 0, buffer, (flags, 0));
    driver.offer(queue, 0);
}

/// Descriptors from index 0 on, each with its next.
fn chain(driver: &mut Driver, queue: usize, parts: &[((u64, u32), u16, u16)]) {
    for (index, (buffer, flags, next)) in (0..).zip(parts) {
        driver.describe(queue, index, *buffer, (*flags, *next));
    }
    driver.offer(queue, 0);
}

const OK: (u64, u32) = (BUFFERS, 64);

macro_rules! shapes {
    ($($name:literal => $verdict:ident, $lay:expr;)*) => {
        &[$(Shape { name: $name, lay: $lay, verdict: Verdict::$verdict }),*]
    };
}

pub const SHAPES: &[Shape] = shapes! {
    "one to write" => Used, |d, q| one(d, q, OK, WRITE);
    "one to read" => Used, |d, q| one(d, q, OK, 0);
    "one byte to write" => Used, |d, q| one(d, q, (BUFFERS, 1), WRITE);
    "one byte to read" => Used, |d, q| one(d, q, (BUFFERS, 1), 0);
    "one less than a header" => Used, |d, q| one(d, q, (BUFFERS, 39), 0);
    "unaligned" => Used, |d, q| one(d, q, (BUFFERS + 1, 41), WRITE);
    "a read part and a write part" => Used, |d, q| chain(d, q, &[(OK, NEXT, 1), (OK, WRITE, 0)]);
    "the last byte of a region" => Used, |d, q| one(d, q, (LOW_END - 1, 1), WRITE);
    "the last bytes of memory" => Used, |d, q| one(d, q, (HIGH_END - 4096, 4096), WRITE);
    "a whole region" => Used, |d, q| one(d, q, (HIGH_START, 0x8_0000), WRITE);
    "more than a request may have" => Used, |d, q| one(d, q, (HIGH_START, 0x4_0000), 0);
    "the same buffer twice" => Used, |d, q| chain(d, q, &[(OK, NEXT, 1), (OK, NEXT | WRITE, 2), (OK, WRITE, 0)]);
    "over the ring itself" => Used, |d, q| one(d, q, (0x8000, 64), WRITE);
    "unknown flags" => Used, |d, q| one(d, q, OK, 0xfff8 | WRITE);
    "a next without NEXT" => Used, |d, q| d.describe_and_offer(q, OK, (WRITE, 0xffff));
    "as long as the ring" => Used, |d, q| {
        for index in 0..d.size(q) {
            let last = index + 1 == d.size(q);
            d.describe(q, index, (BUFFERS + u64::from(index), 1), (WRITE | if last { 0 } else { NEXT }, index + 1));
        }
        d.offer(q, 0);
    };
    "a loop of one" => NeedsReset, |d, q| one(d, q, OK, NEXT);
    "a loop of one to write" => NeedsReset, |d, q| one(d, q, OK, NEXT | WRITE);
    "a loop of two" => NeedsReset, |d, q| chain(d, q, &[(OK, NEXT, 1), (OK, NEXT, 0)]);
    "a loop of two to write" => NeedsReset, |d, q| chain(d, q, &[(OK, NEXT | WRITE, 1), (OK, NEXT | WRITE, 0)]);
    "a tail that loops" => NeedsReset, |d, q| chain(d, q, &[(OK, NEXT, 1), (OK, NEXT, 2), (OK, NEXT, 1)]);
    "a next outside the table" => NeedsReset, |d, q| d.describe_and_offer(q, OK, (NEXT, d.size(q)));
    "a next far outside the table" => NeedsReset, |d, q| d.describe_and_offer(q, OK, (NEXT, 0xffff));
    "a head outside the table" => NeedsReset, |d, q| d.offer(q, d.size(q));
    "a head far outside the table" => NeedsReset, |d, q| d.offer(q, 0xffff);
    "no bytes to read" => NeedsReset, |d, q| one(d, q, (BUFFERS, 0), 0);
    "no bytes to write" => NeedsReset, |d, q| one(d, q, (BUFFERS, 0), WRITE);
    "no bytes in the middle" =>
        NeedsReset, |d, q| chain(d, q, &[(OK, NEXT, 1), ((BUFFERS, 0), NEXT, 2), (OK, WRITE, 0)]);
    "a descriptor of zeros" => NeedsReset, |d, q| d.offer(q, 0);
    "an address in the hole" => NeedsReset, |d, q| one(d, q, (LOW_END, 16), WRITE);
    "an address deep in the hole" => NeedsReset, |d, q| one(d, q, (0xc_0000, 16), 0);
    "into the hole" => NeedsReset, |d, q| one(d, q, (LOW_END - 8, 16), WRITE);
    "into the hole by a byte" => NeedsReset, |d, q| one(d, q, (LOW_END - 8, 9), 0);
    "across the hole" => NeedsReset, |d, q| one(d, q, (LOW_END - 8, 0x8_0010), WRITE);
    "out of the hole" => NeedsReset, |d, q| one(d, q, (HIGH_START - 1, 2), WRITE);
    "behind memory" => NeedsReset, |d, q| one(d, q, (HIGH_END, 1), WRITE);
    "over the end of memory" => NeedsReset, |d, q| one(d, q, (HIGH_END - 1, 2), 0);
    "a register window" => NeedsReset, |d, q| one(d, q, (0xd000_0000, 64), WRITE);
    "the last address" => NeedsReset, |d, q| one(d, q, (u64::MAX, 1), WRITE);
    "around the last address" => NeedsReset, |d, q| one(d, q, (u64::MAX, 64), 0);
    "around to real memory" => NeedsReset, |d, q| one(d, q, (u64::MAX - 0xfff, 0x2000), WRITE);
    "4 GiB less one" => NeedsReset, |d, q| one(d, q, (BUFFERS, u32::MAX), WRITE);
    "4 GiB in all" => NeedsReset, |d, q| {
        chain(d, q, &[((HIGH_START, 0x8_0000), NEXT | WRITE, 1), ((0, u32::MAX), WRITE, 0)]);
    };
    "read behind write" => NeedsReset, |d, q| chain(d, q, &[(OK, NEXT | WRITE, 1), (OK, 0, 0)]);
    "read between writes" =>
        NeedsReset, |d, q| chain(d, q, &[(OK, NEXT | WRITE, 1), (OK, NEXT, 2), (OK, WRITE, 0)]);
    "indirect, which was not offered" => NeedsReset, |d, q| one(d, q, OK, INDIRECT);
    "indirect and more" => NeedsReset, |d, q| chain(d, q, &[(OK, INDIRECT | NEXT, 1), (OK, WRITE, 0)]);
    "indirect behind a good one" => NeedsReset, |d, q| chain(d, q, &[(OK, NEXT, 1), (OK, INDIRECT, 0)]);
    "indirect to itself" => NeedsReset, |d, q| one(d, q, (0x8000, 16), INDIRECT);
    "indirect of no entries" => NeedsReset, |d, q| one(d, q, (BUFFERS, 0), INDIRECT);
    "indirect outside memory" => NeedsReset, |d, q| one(d, q, (HIGH_END, 32), INDIRECT);
    "indirect to write" => NeedsReset, |d, q| one(d, q, OK, INDIRECT | WRITE);
    "longer than the ring" => NeedsReset, |d, q| {
        for index in 0..d.size(q) {
            let next = (index + 1) % d.size(q);
            d.describe(q, index, (BUFFERS + u64::from(index), 1), (WRITE | NEXT, next));
        }
        d.offer(q, 0);
    };
};

impl Driver {
    fn describe_and_offer(&mut self, queue: usize, buffer: (u64, u32), flags: (u16, u16)) {
        self.describe(queue, 0, buffer, flags);
        self.offer(queue, 0);
    }
}
