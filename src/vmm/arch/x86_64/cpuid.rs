// SPDX-License-Identifier: Apache-2.0
//! What processor the guest sees: the host's, less virtualization, each vCPU with its own APIC id.

use kvm_bindings::CpuId;

const FEATURES: u32 = 1;
/// EAX 31:26 of leaf 4: cores in the package, less one (Intel SDM volume 2, CPUID).
const CACHES: u32 = 4;
const CORES: u32 = 0x3f << 26;
const TOPOLOGY: u32 = 0xb;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const VMX: u32 = 1 << 5;
const SVM: u32 = 1 << 2;
const HYPERVISOR: u32 = 1 << 31;

/// `supported` (what KVM can do on this host) as vCPU `id` of `count` sees it.
pub(crate) fn for_vcpu(supported: &CpuId, id: u8, count: u8) -> CpuId {
    let mut cpuid = supported.clone();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            FEATURES => {
                entry.ecx = (entry.ecx & !VMX) | HYPERVISOR;
                entry.ebx = (entry.ebx & 0xffff) | u32::from(count) << 16 | u32::from(id) << 24;
            }
            CACHES if entry.eax & 0x1f != 0 => {
                entry.eax = (entry.eax & !CORES) | (u32::from(count) - 1) << 26;
            }
            TOPOLOGY => entry.edx = u32::from(id),
            EXTENDED_FEATURES => entry.ecx &= !SVM,
            _ => {}
        }
    }
    cpuid
}
