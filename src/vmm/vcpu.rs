// SPDX-License-Identifier: Apache-2.0
//! A vCPU: a thread that enters the guest, serves what made it leave, and enters again until the machine ends.
//!
//! ```text
//!   ┌──► KVM_RUN ──► port or MMIO access ──► bus ──┐
//!   │        │                                     ├── an end? ──► told once, the thread is done
//!   │        ├─────► internal error ──► assist ────┤
//!   └────────┴───────────── no ◄───────────────────┘
//! ```

use crate::assist::{self, Layout, Mended};
use crate::bus::Bus;
use crate::memory::GuestMemory;
use crate::raw;
use crate::wire::End;
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::Arc;

/// `KVM_INTERNAL_ERROR_EMULATION`: KVM met an instruction it cannot emulate.
const EMULATION: u32 = 1;

/// What a vCPU runs with; shared by all of a machine's.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) bus: Arc<Bus>,
    pub(crate) memory: GuestMemory,
    /// Present where KVM emulates.
    pub(crate) assist: Option<Layout>,
}

/// Runs until the machine has a reason to end; the symbol in it is for others to fill in.
pub(crate) fn run(vcpu: &mut VcpuFd, around: &Surroundings) -> End {
    loop {
        let exit = match vcpu.run() {
            Ok(exit) => exit,
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => continue,
            Err(e) => return failed(&format!("cannot run the guest: {e}")),
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
        if let Some(end) = end {
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
