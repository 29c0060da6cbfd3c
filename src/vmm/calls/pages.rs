// SPDX-License-Identifier: Apache-2.0
//! The thread that maps the pages a start touches, and ends.

use isopod_sys::seccomp::{Rule, allow};

pub(crate) const CALLS: &[Rule] = &[
    allow(libc::SYS_futex, "waits for the first KVM_RUN"),
    allow(libc::SYS_madvise, "MADV_POPULATE_READ and _WRITE, of the guest's memory; its stack, at its end"),
    allow(libc::SYS_sigaltstack, "its end"),
    allow(libc::SYS_munmap, "its end"),
    allow(libc::SYS_rt_sigprocmask, "its end"),
    allow(libc::SYS_exit, "its end"),
];
