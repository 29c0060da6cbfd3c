// SPDX-License-Identifier: Apache-2.0
//! A vCPU at work: it enters the guest, what made it leave is served, and it enters again until the machine ends.
//!
//! ```text
//!   ┌──► KVM_RUN ──► port or MMIO access ──► bus ──┐
//!   │        │                                     ├── an end? ──► given back
//!   │        ├─────► internal error ──► assist ────┤
//!   │        ├─────► a kick ──► told to stop? ─────┤
//!   └────────┴───────────── no ◄───────────────────┘
//! ```

use crate::assist::{self, Layout, Mended};
use crate::bus::Bus;
use crate::crew::KICK;
use crate::memory::GuestMemory;
use crate::raw;
use crate::wire::End;
use isopod_sys::signal;
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// `KVM_INTERNAL_ERROR_EMULATION`: KVM met an instruction it cannot emulate.
const EMULATION: u32 = 1;

/// What KVM_RUN's EFAULT means here, where every page of the guest's memory is mapped: a file behind it (the saved machine's,
/// or one of an image's layers) has shrunk, or its disk has failed.
pub(crate) const MEMORY_GONE: &str =
    "a page of the guest's memory cannot be had: the file behind it was cut short or cannot be read";

/// What a vCPU runs with; shared by all of a machine's.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) bus: Arc<Bus>,
    pub(crate) memory: GuestMemory,
    /// Present where KVM emulates.
    pub(crate) assist: Option<Layout>,
}

/// Runs until the machine has a reason to end, whose symbol is for others to fill in; `None` if it was told to stop.
pub(crate) fn run(vcpu: &mut VcpuFd, around: &Surroundings, stop: &AtomicBool) -> Option<End> {
    loop {
        let exit = match vcpu.run() {
            Ok(exit) => exit,
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {
                // Left pending, the signal would end every KVM_RUN to come.
                let _ = signal::take(KICK);
                if stop.load(Ordering::SeqCst) {
                    return None;
                }
                continue;
            }
            Err(e) if e.errno() == libc::EFAULT => return Some(failed(MEMORY_GONE)),
            Err(e) => return Some(failed(&format!("cannot run the guest: {e}"))),
        };
        let end = match exit {
            VcpuExit::MmioRead(address, data) => {
                around.bus.mmio_read(address, data);
                None
            }
            VcpuExit::MmioWrite(address, data) => {
                around.bus.mmio_write(address, data);
                None
            }
            VcpuExit::IoIn(port, data) => {
                around.bus.port_read(port, data);
                None
            }
            VcpuExit::IoOut(port, data) => around.bus.port_write(port, data),
            VcpuExit::Shutdown => Some(End::TripleFault { rip: rip(vcpu), symbol: None }),
            VcpuExit::InternalError => mend(vcpu, around),
            VcpuExit::FailEntry(reason, _) => {
                Some(failed(&format!("KVM cannot enter the guest (reason {reason:#x})")))
            }
            VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen => None,
            other => Some(failed(&format!("KVM stopped for a reason that is not ours: {other:?}"))),
        };
        if end.is_some() {
            return end;
        }
    }
}

fn mend(vcpu: &mut VcpuFd, around: &Surroundings) -> Option<End> {
    let suberror = raw::internal_suberror(vcpu);
    if let (EMULATION, Some(layout)) = (suberror, &around.assist) {
        match assist::mend(vcpu, &around.memory, layout) {
            Ok(Mended::Yes) => return None,
            Ok(Mended::No) => {}
            Err(e) => return Some(failed(&format!("cannot mend what KVM cannot emulate: {e}"))),
        }
    }
    let rip = rip(vcpu);
    let bytes = assist::instruction_bytes(vcpu, &around.memory, rip);
    Some(End::InternalError { suberror, rip, bytes, symbol: None })
}

fn rip(vcpu: &VcpuFd) -> u64 {
    vcpu.get_regs().map_or(0, |regs| regs.rip)
}

fn failed(message: &str) -> End {
    End::Failed { message: message.to_owned() }
}
