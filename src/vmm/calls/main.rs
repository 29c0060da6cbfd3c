// SPDX-License-Identifier: Apache-2.0
//! The first thread: does what the engine asks for while the guest runs. What it opened, made and mapped before is done.

use super::{GET_REGS, GET_SREGS, GET_VCPU_EVENTS, GET_XSAVE, TRANSLATE};
use isopod_sys::seccomp::{Rule, When, allow, allow_when, ioctl};

pub(crate) const CALLS: &[Rule] = &[
    allow(libc::SYS_ppoll, "waits for the engine's word, the guest's end, the agent at its mailbox"),
    allow(libc::SYS_recvmsg, "what the engine asks for"),
    allow(libc::SYS_sendmsg, "what it is answered"),
    allow(libc::SYS_futex, "starts and stops the other threads"),
    allow(libc::SYS_pread64, "KVM's counters; which pages were touched"),
    // To stand still and go on.
    allow(libc::SYS_getpid, "pthread_kill"),
    allow(libc::SYS_tgkill, "ends KVM_RUN of a vCPU"),
    allow(libc::SYS_rt_sigprocmask, "pthread_kill"),
    allow(libc::SYS_clock_gettime, "the time, on hosts whose vDSO cannot tell it"),
    allow(libc::SYS_write, "a device's stop, a list of pages"),
    allow_when(
        libc::SYS_fcntl,
        When::Is(1, libc::F_DUPFD_CLOEXEC.cast_unsigned()),
        "a queue's kick, for a device that goes on",
    ),
    allow_when(
        libc::SYS_fcntl,
        When::Is(1, libc::F_GETFD.cast_unsigned()),
        "a checked build looks whether what it closes is open",
    ),
    allow(libc::SYS_close, "what came with a request"),
    // To be written down.
    allow(libc::SYS_read, "as whom it is saved"),
    allow(libc::SYS_pwrite64, "the machine's file"),
    allow(libc::SYS_ftruncate, "the machine's file, as long as it will be"),
    allow(libc::SYS_fsync, "the machine's file, to the disk"),
    ioctl(0xae03, "KVM_CHECK_EXTENSION: how large a processor's state is"),
    ioctl(0xc004_ae02, "KVM_GET_MSR_INDEX_LIST"),
    ioctl(0xc208_ae62, "KVM_GET_IRQCHIP"),
    ioctl(GET_REGS, "KVM_GET_REGS; whether the agent waits at its mailbox"),
    ioctl(GET_SREGS, "KVM_GET_SREGS"),
    ioctl(TRANSLATE, "KVM_TRANSLATE: where the mailbox is"),
    ioctl(GET_XSAVE, "KVM_GET_XSAVE"),
    ioctl(GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS"),
    ioctl(0x8188_aea6, "KVM_GET_XCRS"),
    ioctl(0x8080_aea1, "KVM_GET_DEBUGREGS"),
    ioctl(0x8400_ae8e, "KVM_GET_LAPIC"),
    ioctl(0xc008_ae88, "KVM_GET_MSRS"),
    ioctl(0x8004_ae98, "KVM_GET_MP_STATE"),
    // Memory of its own.
    allow(libc::SYS_brk, "the heap"),
    allow_when(libc::SYS_madvise, When::Is(2, libc::MADV_DONTNEED.cast_unsigned()), "the heap gives back"),
    allow(libc::SYS_sigaltstack, "its end"),
    allow(libc::SYS_munmap, "its end"),
    allow(libc::SYS_exit_group, "its end, and the machine's"),
];
