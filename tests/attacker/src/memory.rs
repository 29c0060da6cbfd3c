// SPDX-License-Identifier: Apache-2.0
//! The guest's memory as an attack sees it: rings and buffers at addresses, not objects. And, at addresses too, registers.
//!
//! ```text
//!    0           16 MiB             32 MiB    33        36                      64 MiB
//!    ├─ page 0 ──┼─ this kernel ────┼─ rings ─┼ buffers ┼─ anywhere else ────────┤ nothing, to the windows
//! ```
//!
//! Nothing below the rings is ever given to a device, but page 0: a device told to write there would end the attacker.

use crate::entry::{Arguments, Call, call};
use core::arch::asm;
use core::ptr;
use core::slice;

/// What the machine has, as it was told to.
pub(crate) const RAM: u64 = 64 << 20;
const ARENA: u64 = 32 << 20;
const RINGS: u64 = ARENA;
/// Where an attack puts what it wants read, and where it wants answers.
pub(crate) const BUFFERS: u64 = ARENA + (1 << 20);
pub(crate) const ANSWERS: u64 = ARENA + (2 << 20);
pub(crate) const ELSEWHERE: u64 = ARENA + (4 << 20);
pub(crate) const WINDOWS: u64 = 0xd000_0000;
const RING: u64 = 0x1_0000;

/// Where the ring of a queue lies: descriptors, what the driver offers, what the device used.
pub(crate) fn ring(device: u64, queue: u64) -> (u64, u64, u64) {
    let at = RINGS + (device * 4 + queue) * RING;
    (at, at + 0x4000, at + 0x8000)
}

/// What can be kept in the guest's memory and in registers.
pub(crate) trait Word: Copy {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

pub(crate) fn put<T: Word>(at: u64, value: T) {
    // SAFETY: `at` is in the part of memory that is nobody's; no reference leads there.
    unsafe { ptr::write_unaligned(at as *mut T, value) };
    // A device reads it next, or writes it.
    fence();
}

pub(crate) fn get<T: Word>(at: u64) -> T {
    fence();
    // SAFETY: as above, and any bytes are a number.
    unsafe { ptr::read_unaligned(at as *const T) }
}

pub(crate) fn put_bytes(at: u64, bytes: &[u8]) {
    // SAFETY: as above; and `bytes` is not there.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
    fence();
}

pub(crate) fn fill(at: u64, value: u8, len: usize) {
    // SAFETY: as above.
    unsafe { ptr::write_bytes(at as *mut u8, value, len) };
    fence();
}

/// A copy is judged, not what a device may still be writing.
pub(crate) fn get_bytes(at: u64, into: &mut [u8]) {
    fence();
    // SAFETY: as above.
    unsafe { ptr::copy(at as *const u8, into.as_mut_ptr(), into.len()) };
}

fn fence() {
    // SAFETY: it does nothing, but whatever is in memory may have changed.
    unsafe { asm!("mfence", options(nostack)) };
}

/// One access from user mode, of any width.
pub(crate) fn read_now<T: Word + Default>(at: u64) -> T {
    let mut value = T::default();
    let place = ptr::from_mut(&mut value) as u64;
    // SAFETY: what is at `at` is a device, or nothing; one instruction of the width that was asked for.
    unsafe {
        match size_of::<T>() {
            1 => asm!("mov al, [rsi]", "mov [rdi], al", in("rsi") at, in("rdi") place, out("al") _),
            2 => asm!("mov ax, [rsi]", "mov [rdi], ax", in("rsi") at, in("rdi") place, out("ax") _),
            4 => asm!("mov eax, [rsi]", "mov [rdi], eax", in("rsi") at, in("rdi") place, out("eax") _),
            _ => asm!("mov rax, [rsi]", "mov [rdi], rax", in("rsi") at, in("rdi") place, out("rax") _),
        }
    }
    value
}

pub(crate) fn write_now<T: Word>(at: u64, value: T) {
    let place = ptr::from_ref(&value) as u64;
    // SAFETY: as above.
    unsafe {
        match size_of::<T>() {
            1 => asm!("mov al, [rsi]", "mov [rdi], al", in("rdi") at, in("rsi") place, out("al") _),
            2 => asm!("mov ax, [rsi]", "mov [rdi], ax", in("rdi") at, in("rsi") place, out("ax") _),
            4 => asm!("mov eax, [rsi]", "mov [rdi], eax", in("rdi") at, in("rsi") place, out("eax") _),
            _ => asm!("mov rax, [rsi]", "mov [rdi], rax", in("rdi") at, in("rsi") place, out("rax") _),
        }
    }
}

/// Writes to registers that are yet to be done, in this order.
#[derive(Debug)]
pub(crate) struct Batch {
    pairs: [(u64, u64); 64],
    len: usize,
}

impl Batch {
    pub(crate) const fn new() -> Self {
        Self { pairs: [(0, 0); 64], len: 0 }
    }

    pub(crate) fn write(&mut self, at: u64, value: u32) {
        if self.len == self.pairs.len() {
            self.flush();
        }
        self.pairs[self.len] = (at, value.into());
        self.len += 1;
    }

    pub(crate) fn flush(&mut self) {
        if self.len > 0 {
            self.read(RAM - 64);
        }
    }

    /// What is at `at` after all of it.
    pub(crate) fn read(&mut self, at: u64) -> u32 {
        if self.len == 0 {
            return read_now(at);
        }
        let count = self.len as u64;
        self.len = 0;
        call(Call::Registers, Arguments { at: self.pairs.as_ptr() as u64, count, place: at, value: 0 })
    }
}

/// What the compiler takes for granted, and no library brings here.
///
/// # Safety
/// As the C standard has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _) };
    to
}

/// # Safety
/// As the C standard has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: the caller's, and what is overwritten was read.
        return unsafe { memcpy(to, from, len) };
    }
    let (last_to, last_from) = (to.wrapping_add(len - 1), from.wrapping_add(len - 1));
    // SAFETY: the caller's; from the end on, and the direction is as it was afterwards.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rdi") last_to => _, inout("rsi") last_from => _, inout("rcx") len => _);
    }
    to
}

/// # Safety
/// As the C standard has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, in("al") value.to_le_bytes()[0], inout("rcx") len => _)
    };
    to
}

/// # Safety
/// As the C standard has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's.
    let (one, other) = unsafe { (slice::from_raw_parts(one, len), slice::from_raw_parts(other, len)) };
    let mut place = 0;
    while place < len {
        if one[place] != other[place] {
            return i32::from(one[place]) - i32::from(other[place]);
        }
        place += 1;
    }
    0
}
