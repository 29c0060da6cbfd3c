// SPDX-License-Identifier: Apache-2.0
//! The system calls of a process that reads what strangers made: memory, the socket and the files it has, its own end. It
//! opens nothing and starts nothing.

use isopod_sys::seccomp::{Rule, UNCOUNTED, When, allow, allow_when, allow_when_both};

pub(super) const CALLS: &[Rule] = &[
    allow(libc::SYS_recvmsg, "a piece of the layer"),
    allow(libc::SYS_write, "contents and names, into the two files"),
    allow(libc::SYS_sendmsg, "what became of the layer"),
    allow_when(
        libc::SYS_fcntl,
        When::Is(1, libc::F_GETFD.cast_unsigned()),
        "a checked build looks whether what it closes is open",
    ),
    allow(libc::SYS_close, "the two files"),
    allow(libc::SYS_brk, "the heap"),
    allow_when_both(
        libc::SYS_mmap,
        [When::Lacks(2, libc::PROT_EXEC.cast_unsigned()), When::Lacks(3, UNCOUNTED)],
        "the heap, for what is large",
    ),
    allow(libc::SYS_munmap, "the heap"),
    allow(libc::SYS_mremap, "the heap: what is large grows"),
    allow(libc::SYS_getrandom, "the seed of a hash table"),
    allow(libc::SYS_sigaltstack, "the first thread's end"),
    allow(libc::SYS_exit_group, "its end"),
];
