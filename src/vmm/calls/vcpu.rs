// SPDX-License-Identifier: Apache-2.0
//! A vCPU's thread: enters the guest, and serves what made it leave. It is the one nearest to the guest, and has the least.

use super::{GET_REGS, GET_SREGS, GET_VCPU_EVENTS, GET_XSAVE, TRANSLATE};
use isopod_sys::seccomp::{Rule, When, allow, allow_when, ioctl};

pub(crate) const CALLS: &[Rule] = &[
    ioctl(0xae80, "KVM_RUN: enters the guest"),
    ioctl(GET_REGS, "KVM_GET_REGS: where it stopped"),
    ioctl(TRANSLATE, "KVM_TRANSLATE: where an operand is, for what is done in KVM's place"),
    ioctl(0x4090_ae82, "KVM_SET_REGS: after what was done in KVM's place"),
    ioctl(GET_SREGS, "KVM_GET_SREGS: in which mode it stopped, for what is done in KVM's place"),
    ioctl(0x4138_ae84, "KVM_SET_SREGS: the address of a fault in KVM's place"),
    ioctl(GET_XSAVE, "KVM_GET_XSAVE: XSAVE in KVM's place"),
    ioctl(0x5000_aea5, "KVM_SET_XSAVE: XRSTOR in KVM's place"),
    ioctl(GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS: INT3 in KVM's place"),
    ioctl(0x4040_aea0, "KVM_SET_VCPU_EVENTS: INT3 in KVM's place"),
    ioctl(0x4004_ae8b, "KVM_SET_SIGNAL_MASK: what ends KVM_RUN"),
    ioctl(0x4020_ae46, "KVM_SET_USER_MEMORY_REGION: the guest asks for more of its memory"),
    allow(libc::SYS_futex, "waits to be started, gives its vCPU back, starts and stops devices"),
    allow(libc::SYS_write, "an interrupt, a kick, the guest's end, the console"),
    allow(libc::SYS_rt_sigtimedwait, "the signal that ended KVM_RUN is taken"),
    allow_when(libc::SYS_fcntl, When::Is(1, DUPFD_CLOEXEC), "a queue's kick, for a device that starts"),
    allow_when(libc::SYS_fcntl, When::Is(1, GETFD), "a checked build looks whether what it closes is open"),
    allow(libc::SYS_close, "that kick, when the device has stopped"),
    allow(libc::SYS_brk, "the heap"),
];

const DUPFD_CLOEXEC: u32 = libc::F_DUPFD_CLOEXEC.cast_unsigned();
const GETFD: u32 = libc::F_GETFD.cast_unsigned();
