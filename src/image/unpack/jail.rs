// SPDX-License-Identifier: Apache-2.0
//! What is left to a process that reads what strangers made.

use crate::limits::Limits;
use isopod_sys::seccomp;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use std::io;

/// Memory, the socket and the files it has, time, and its own end. It opens nothing and starts nothing.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_lseek,
    // A checked build looks whether what it closes is open.
    libc::SYS_fcntl,
    libc::SYS_close,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Beside names and attributes: a zstd stream's window, buffers, what the C library keeps.
const MEMORY_BESIDE: u64 = 56 << 20;
/// Of an index, beside what the layer has.
const FILE_BESIDE: u64 = 1 << 30;

/// Closes behind this process, for good.
pub(super) fn enter(limits: &Limits) -> io::Result<()> {
    limit(Resource::Data, (limits.layer_metadata as u64).saturating_add(MEMORY_BESIDE))?;
    limit(Resource::Fsize, limits.layer_bytes.saturating_add(FILE_BESIDE))?;
    limit(Resource::Core, 0)?;
    // Whoever started it may be gone already; then there is nothing to read, which ends it too.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    seccomp::allow_only(CALLS)
}

/// No more than it has already.
fn limit(what: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(what).maximum.map_or(most, |already| already.min(most));
    Ok(setrlimit(what, Rlimit { current: Some(most), maximum: Some(most) })?)
}
