// SPDX-License-Identifier: Apache-2.0
//! The C library's heap, which keeps what was freed for whoever asks next.

/// Gives back to the system what is free: for a process that has done its work and is to wait for hours.
pub fn give_back() {
    // SAFETY: the heap is locked meanwhile, and nothing that is in use is moved or unmapped.
    unsafe { libc::malloc_trim(0) };
}

/// Has all threads share one heap, in one piece: for a process whose threads ask for memory when they begin, and hardly ever
/// after. It grows and shrinks by brk(2) alone, whichever thread makes it.
pub fn share_one() {
    for (setting, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_MAX, 0)] {
        // SAFETY: a setting of the C library's, which takes a number.
        unsafe { libc::mallopt(setting, value) };
    }
}
