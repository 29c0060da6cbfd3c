// SPDX-License-Identifier: Apache-2.0
//! The system calls of every device's thread: it waits, is told, interrupts, and has a heap.

use isopod_sys::seccomp::{Rule, allow};

pub(super) const CALLS: &[Rule] = &[
    allow(libc::SYS_epoll_wait, "waits for a kick, a stop, a socket"),
    allow(libc::SYS_read, "a kick, a stop: the event is taken"),
    allow(libc::SYS_write, "an interrupt, and a queue's kick of its own"),
    allow(libc::SYS_futex, "waits for an order, and gives the queues back"),
    allow(libc::SYS_epoll_create1, "begins to wait for a driver"),
    allow(libc::SYS_epoll_ctl, "what it waits for"),
    allow(libc::SYS_close, "has waited"),
    allow(libc::SYS_ppoll, "waits for a stop when the ring is broken"),
    allow(libc::SYS_brk, "the heap, which is one for all threads"),
];
