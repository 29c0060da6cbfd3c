// SPDX-License-Identifier: Apache-2.0
//! The few KVM calls whose faces are unsafe, each with its reason. One of the room's modules where `unsafe` lives.
#![expect(unsafe_code, reason = "KVM calls that take memory or trust the caller's choice of a union's field")]

use crate::wire::Counters;
use kvm_bindings::{kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};
use vmm_sys_util::ioctl::{ioctl, ioctl_with_ref};
use vmm_sys_util::{ioctl_io_nr, ioctl_iow_nr};

// No argument, a descriptor back (`Documentation/virt/kvm/api.rst` 4.133).
ioctl_io_nr!(KVM_GET_STATS_FD, 0xae, 0xce);

// Inside KVM_RUN the thread has this mask instead of its own (`Documentation/virt/kvm/api.rst` 4.17).
ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, 0xae, 0x8b, u32);

/// `struct kvm_signal_mask` with the kernel's 64 signals behind it.
#[repr(C)]
struct SignalMask {
    len: u32,
    blocked: [u32; 2],
}

/// Lets one signal end this vCPU's KVM_RUN, and no other.
pub(crate) fn let_through(vcpu: &VcpuFd, signal: i32) -> io::Result<()> {
    let through = u32::try_from(signal - 1).map_or(0, |bit| 1u64 << bit);
    let halves = |mask: u64| [mask & u64::from(u32::MAX), mask >> 32];
    let blocked = halves(!through).map(|half| u32::try_from(half).unwrap_or(u32::MAX));
    let mask = SignalMask { len: 8, blocked };
    // SAFETY: KVM reads the length and as many bytes as it says, which are there.
    match unsafe { ioctl_with_ref(&vcpu.as_raw_fd(), KVM_SET_SIGNAL_MASK(), &mask) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes over a descriptor of /dev/kvm that somebody else opened.
pub(crate) fn kvm_from(fd: OwnedFd) -> Kvm {
    // SAFETY: the descriptor is owned and given up here; if it is no /dev/kvm, every ioctl on it fails.
    unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) }
}

/// Gives the guest `(address, length)` of `memory`, which must lie in one of its regions.
///
/// `vm` must be gone before `memory` is: `Slots` owns both and drops them in that order, and `Assembled` drops its share of
/// `vm` before it, as does who takes it apart.
pub(crate) fn set_slot(
    vm: &VmFd,
    memory: &GuestMemoryMmap<()>,
    slot: u32,
    (at, len): (u64, u64),
) -> Result<(), kvm_ioctls::Error> {
    let outside = kvm_ioctls::Error::new(libc::EINVAL);
    let region = memory.find_region(GuestAddress(at)).ok_or(outside)?;
    let into = at - region.start_addr().0;
    if region.len() - into < len {
        return Err(outside);
    }
    let host = region.get_host_address(MemoryRegionAddress(into)).map_err(|_| outside)?;
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: at,
        memory_size: len,
        userspace_addr: host as u64,
    };
    // SAFETY: the range lies inside one mapping of ours (checked above), and nothing but volatile accesses go to it.
    unsafe { vm.set_user_memory_region(region) }
}

/// After `VcpuExit::InternalError`: which one (`KVM_INTERNAL_ERROR_*`).
pub(crate) fn internal_suberror(vcpu: &mut VcpuFd) -> u32 {
    let run = vcpu.get_kvm_run();
    // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, for which KVM fills in this field; any bits are a valid u32.
    unsafe { run.__bindgen_anon_1.internal.suberror }
}

/// Sets the whole extended state from one page: `state::check_extended` refuses a processor whose state is larger.
pub(crate) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: KVM reads at most KVM_CAP_XSAVE2 bytes, which `state::check_extended` found to be no more than this structure has.
    unsafe { vcpu.set_xsave(xsave) }
}

/// `struct kvm_stats_header`, `struct kvm_stats_desc` without its name, and more than KVM has of either.
const HEADER: usize = 24;
const DESCRIPTOR: usize = 16;
const MAX_NAME: usize = 256;
const MAX_COUNTERS: usize = 1024;

/// A vCPU's statistics, read whenever wanted without stopping it.
#[derive(Debug)]
pub(crate) struct Stats {
    file: File,
    emulated: Option<u64>,
    interrupts: Option<u64>,
    exits: Option<u64>,
}

impl Stats {
    /// Finds where KVM keeps the counters (`Documentation/virt/kvm/api.rst` 4.133: header, names, descriptors, data).
    pub(crate) fn of(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: KVM_GET_STATS_FD takes no argument and touches no memory of ours.
        let fd = unsafe { ioctl(&vcpu.as_raw_fd(), KVM_GET_STATS_FD()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: KVM has just made this descriptor for us.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let [name_len, count, descriptors, data] = [4, 8, 16, 20].map(|at| word(&header, at));
        let step = DESCRIPTOR + name_len.min(MAX_NAME);
        // All at once: one read for half a hundred names.
        let mut table = vec![0; step * count.min(MAX_COUNTERS)];
        file.read_exact_at(&mut table, descriptors as u64)?;
        let mut stats = Self { file, emulated: None, interrupts: None, exits: None };
        for descriptor in table.chunks_exact(step) {
            let value_at = Some(data as u64 + word(descriptor, 8) as u64);
            match descriptor[DESCRIPTOR..].split(|b| *b == 0).next() {
                Some(b"insn_emulation") => stats.emulated = value_at,
                Some(b"irq_injections") => stats.interrupts = value_at,
                Some(b"exits") => stats.exits = value_at,
                _ => {}
            }
        }
        Ok(stats)
    }

    /// Adds this vCPU's counts to `counters`; what KVM does not count stays as it is.
    pub(crate) fn add_to(&self, counters: &mut Counters) {
        let value = |at: Option<u64>| {
            let mut bytes = [0; 8];
            at.and_then(|at| self.file.read_exact_at(&mut bytes, at).ok())
                .map_or(0, |()| u64::from_le_bytes(bytes))
        };
        counters.emulated_instructions += value(self.emulated);
        counters.interrupts += value(self.interrupts);
        counters.exits += value(self.exits);
    }
}

/// The u32 at a place in one of KVM's tables.
fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}
