// SPDX-License-Identifier: Apache-2.0
//! What a processor and the interrupt controllers know, read while nothing runs and written into new ones.
//!
//! The order is KVM's: the multiprocessing state is asked first, for asking it settles INIT and SIPI that are pending;
//! local APICs are set before the MSRs, of which TSC_DEADLINE, the last, arms their timer; events come last of all.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, Msrs, kvm_debugregs, kvm_irqchip,
    kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::raw;

const TSC: u32 = 0x10;
const TSC_DEADLINE: u32 = 0x6e0;
const CHIPS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];
/// More than any KVM lists.
const MAX_MSRS: usize = 1024;

#[derive(Debug, Error)]
pub(crate) enum StateError {
    #[error("KVM refuses (op={op})")]
    Kvm { op: &'static str, source: kvm_ioctls::Error },
    #[error("KVM does not take model-specific register {0:#x}")]
    Msr(u32),
    #[error("this processor's extended state takes {0} bytes, more than a page")]
    Extended(i32),
    #[error("{0} model-specific registers are more than there are")]
    Msrs(usize),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VcpuState {
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    msrs: Vec<(u32, u64)>,
}

/// Refuses a processor whose extended state is more than the page that is carried here.
pub(crate) fn check_extended(kvm: &Kvm) -> Result<(), StateError> {
    let len = kvm.check_extension_int(Cap::Xsave2);
    let fits = usize::try_from(len).is_ok_and(|len| len <= size_of::<kvm_xsave>());
    if fits { Ok(()) } else { Err(StateError::Extended(len)) }
}

/// The model-specific registers that this KVM would have saved, in the order in which they are to be set.
pub(crate) fn msrs_of(kvm: &Kvm) -> Result<Vec<u32>, StateError> {
    let list = kvm.get_msr_index_list().map_err(op("list MSRs"))?;
    let mut all = list.as_slice().to_vec();
    all.retain(|msr| ![TSC, TSC_DEADLINE].contains(msr));
    all.insert(0, TSC);
    all.push(TSC_DEADLINE);
    Ok(all)
}

/// `msrs` are those of `msrs_of`; what this processor lacks of them is left out.
pub(crate) fn save(vcpu: &VcpuFd, msrs: &[u32]) -> Result<VcpuState, StateError> {
    Ok(VcpuState {
        mp_state: vcpu.get_mp_state().map_err(op("get MP state"))?,
        regs: vcpu.get_regs().map_err(op("get registers"))?,
        sregs: vcpu.get_sregs().map_err(op("get system registers"))?,
        xsave: vcpu.get_xsave().map_err(op("get extended state"))?,
        xcrs: vcpu.get_xcrs().map_err(op("get extended control registers"))?,
        debug: vcpu.get_debug_regs().map_err(op("get debug registers"))?,
        lapic: vcpu.get_lapic().map_err(op("get local APIC"))?,
        msrs: save_msrs(vcpu, msrs)?,
        events: vcpu.get_vcpu_events().map_err(op("get events"))?,
    })
}

/// All at once as far as KVM goes; it stops at the first it cannot read, and behind that it is asked again.
fn save_msrs(vcpu: &VcpuFd, wanted: &[u32]) -> Result<Vec<(u32, u64)>, StateError> {
    let mut saved = Vec::with_capacity(wanted.len());
    let mut rest = wanted;
    while !rest.is_empty() {
        let mut msrs = entries(rest.iter().map(|index| (*index, 0)))?;
        let read = vcpu.get_msrs(&mut msrs).map_err(op("get MSRs"))?;
        saved.extend(msrs.as_slice().iter().take(read).map(|entry| (entry.index, entry.data)));
        rest = rest.get(read + 1..).unwrap_or_default();
    }
    Ok(saved)
}

/// `tsc` in place of its own, so that all processors of a machine have the same.
pub(crate) fn restore(vcpu: &VcpuFd, state: &VcpuState, tsc: Option<u64>) -> Result<(), StateError> {
    vcpu.set_mp_state(state.mp_state).map_err(op("set MP state"))?;
    vcpu.set_regs(&state.regs).map_err(op("set registers"))?;
    vcpu.set_sregs(&state.sregs).map_err(op("set system registers"))?;
    raw::set_xsave(vcpu, &state.xsave).map_err(op("set extended state"))?;
    vcpu.set_xcrs(&state.xcrs).map_err(op("set extended control registers"))?;
    vcpu.set_debug_regs(&state.debug).map_err(op("set debug registers"))?;
    vcpu.set_lapic(&state.lapic).map_err(op("set local APIC"))?;
    let own = |(index, data): &(u32, u64)| (*index, if *index == TSC { tsc.unwrap_or(*data) } else { *data });
    let msrs = entries(state.msrs.iter().map(own))?;
    let set = vcpu.set_msrs(&msrs).map_err(op("set MSRs"))?;
    if let Some(refused) = state.msrs.get(set) {
        return Err(StateError::Msr(refused.0));
    }
    vcpu.set_vcpu_events(&state.events).map_err(op("set events"))
}

impl VcpuState {
    /// What its time-stamp counter stood at.
    pub(crate) fn tsc(&self) -> Option<u64> {
        self.msrs.iter().find(|(index, _)| *index == TSC).map(|(_, data)| *data)
    }
}

fn entries(of: impl ExactSizeIterator<Item = (u32, u64)>) -> Result<Msrs, StateError> {
    let count = of.len();
    if count > MAX_MSRS {
        return Err(StateError::Msrs(count));
    }
    let entries: Vec<_> =
        of.map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() }).collect();
    Msrs::from_entries(&entries).map_err(|_| StateError::Msrs(count))
}

/// The two legacy interrupt controllers and the I/O APIC.
pub(crate) fn save_chips(vm: &VmFd) -> Result<Vec<kvm_irqchip>, StateError> {
    let chip = |chip_id| {
        let mut chip = kvm_irqchip { chip_id, ..Default::default() };
        vm.get_irqchip(&mut chip).map_err(op("get irqchip"))?;
        Ok(chip)
    };
    CHIPS.into_iter().map(chip).collect()
}

pub(crate) fn restore_chips(vm: &VmFd, chips: &[kvm_irqchip]) -> Result<(), StateError> {
    chips.iter().try_for_each(|chip| vm.set_irqchip(chip).map_err(op("set irqchip")))
}

fn op(op: &'static str) -> impl Fn(kvm_ioctls::Error) -> StateError {
    move |source| StateError::Kvm { op, source }
}
