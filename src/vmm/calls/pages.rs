// SPDX-License-Identifier: Apache-2.0
//! The thread that maps the pages a start touches, and ends.

use isopod_sys::seccomp::{Rule, When, allow, allow_when};

pub(crate) const CALLS: &[Rule] = &[
    allow(libc::SYS_futex, "waits for the first KVM_RUN"),
    allow_when(
        libc::SYS_madvise,
        When::Is(2, libc::MADV_POPULATE_READ.cast_unsigned()),
        "MADV_POPULATE_READ: pages that a start reads",
    ),
    allow_when(
        libc::SYS_madvise,
        When::Is(2, libc::MADV_POPULATE_WRITE.cast_unsigned()),
        "MADV_POPULATE_WRITE: pages that it writes",
    ),
    allow_when(
        libc::SYS_madvise,
        When::Is(2, libc::MADV_DONTNEED.cast_unsigned()),
        "MADV_DONTNEED: its stack, at its end",
    ),
    allow(libc::SYS_brk, "the heap, which is one for all threads"),
    allow(libc::SYS_sigaltstack, "its end"),
    allow(libc::SYS_munmap, "its end"),
    allow(libc::SYS_rt_sigprocmask, "its end"),
    allow(libc::SYS_exit, "its end"),
];
