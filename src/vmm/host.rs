// SPDX-License-Identifier: Apache-2.0
//! What kind of KVM this host has. Found out by running two instructions in a guest of one page, not by its name.

use crate::arch::cpuid;
use crate::config::Assist;
use crate::raw;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Cap, Kvm, VcpuExit};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub const DEVICE: &str = "/dev/kvm";
/// The only version there has ever been since Linux 2.6.22.
const API_VERSION: i32 = 12;
const NEEDED: [(Cap, &str); 4] = [
    (Cap::Irqchip, "irqchip"),
    (Cap::UserMemory, "user memory"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::Irqfd, "irqfd"),
];
/// FWAIT, HLT.
const PROBE: [u8; 2] = [0x9b, 0xf4];
const PROBE_AT: u64 = 0x1000;
const PAGE: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKvm {
    pub api_version: i32,
    pub max_vcpus: u64,
    pub assist: Assist,
    /// The processor a guest sees, in a line: what was saved under another cannot be restored.
    pub cpu: String,
}

#[derive(Debug, Error)]
pub enum ProbeError {
    #[error("cannot open {DEVICE}")]
    Open(#[source] io::Error),
    #[error("{DEVICE} speaks version {0} of KVM's API; {API_VERSION} is needed")]
    Version(i32),
    #[error("this KVM has no {0}")]
    Missing(&'static str),
    #[error("cannot run a guest of one page (op={op})")]
    Probe { op: &'static str, source: io::Error },
}

/// Opens /dev/kvm, for a machine or for `probe`.
pub fn open() -> Result<File, ProbeError> {
    OpenOptions::new().read(true).write(true).open(DEVICE).map_err(ProbeError::Open)
}

/// Looks at the KVM behind `kvm`. Takes about as long as making one machine.
pub fn probe(kvm: &File) -> Result<HostKvm, ProbeError> {
    let fd: OwnedFd = kvm.as_fd().try_clone_to_owned().map_err(ProbeError::Open)?;
    let kvm = raw::kvm_from(fd);
    let api_version = kvm.get_api_version();
    if api_version != API_VERSION {
        return Err(ProbeError::Version(api_version));
    }
    if let Some((_, name)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        return Err(ProbeError::Missing(name));
    }
    let max_vcpus = kvm.get_max_vcpus() as u64;
    let (assist, tsc_khz) = kind(&kvm)?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(kvm_failed("get CPUID"))?;
    let cpu = format!("{} at {tsc_khz} kHz", cpuid::describe(&cpuid));
    Ok(HostKvm { api_version, max_vcpus, assist, cpu })
}

/// Real mode, one page: on hardware FWAIT is an instruction like any other; an emulating KVM gives up on it. With it the
/// frequency of the guest's time-stamp counter.
fn kind(kvm: &Kvm) -> Result<(Assist, u32), ProbeError> {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(PROBE_AT), PAGE)])
        .map_err(|e| failed("map a page")(io::Error::other(e)))?;
    memory
        .write_slice(&PROBE, GuestAddress(PROBE_AT))
        .map_err(|e| failed("write the code")(io::Error::other(e)))?;
    let vm = kvm.create_vm().map_err(kvm_failed("create VM"))?;
    raw::set_slot(&vm, &memory, 0, (PROBE_AT, PAGE as u64)).map_err(kvm_failed("set memory"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(kvm_failed("create vCPU"))?;
    let mut sregs = vcpu.get_sregs().map_err(kvm_failed("get registers"))?;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    vcpu.set_sregs(&sregs).map_err(kvm_failed("set registers"))?;
    let mut regs = vcpu.get_regs().map_err(kvm_failed("get registers"))?;
    regs.rip = PROBE_AT;
    vcpu.set_regs(&regs).map_err(kvm_failed("set registers"))?;
    let tsc_khz = vcpu.get_tsc_khz().map_err(kvm_failed("get the TSC's frequency"))?;
    match vcpu.run().map_err(kvm_failed("run"))? {
        VcpuExit::Hlt => Ok((Assist::None, tsc_khz)),
        VcpuExit::InternalError => Ok((Assist::Emulated, tsc_khz)),
        other => Err(failed("run")(io::Error::other(format!("{other:?}")))),
    }
}

fn kvm_failed(op: &'static str) -> impl Fn(kvm_ioctls::Error) -> ProbeError {
    move |e| failed(op)(io::Error::from_raw_os_error(e.errno()))
}

fn failed(op: &'static str) -> impl Fn(io::Error) -> ProbeError {
    move |source| ProbeError::Probe { op, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_kind_of_kvm_found_by_running_agrees_with_its_name() {
        let named_pvm = Path::new("/sys/module/kvm_pvm").exists();
        let found = probe(&open().unwrap()).unwrap();
        assert_eq!(found.assist == Assist::Emulated, named_pvm, "{found:?}");
        assert_eq!(probe(&open().unwrap()).unwrap(), found, "asked twice, from whatever processor");
    }
}
