// SPDX-License-Identifier: Apache-2.0
//! What processor the guest sees: the host's, less virtualization, each vCPU with its own APIC id.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use sha2::{Digest, Sha256};

const VENDOR: u32 = 0;
const FEATURES: u32 = 1;
/// EAX 31:26 of leaf 4: cores in the package, less one (Intel SDM volume 2, CPUID).
const CACHES: u32 = 4;
const CORES: u32 = 0x3f << 26;
const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_2: u32 = 0x1f;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const EXTENDED_TOPOLOGY: u32 = 0x8000_001e;
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

/// Vendor, signature (EAX of leaf 1) and a hash of all else that KVM supports, but for what depends on the processor that
/// is asked.
pub(crate) fn describe(supported: &CpuId) -> String {
    let entries = supported.as_slice();
    let leaf = |function| entries.iter().find(|e| e.function == function).copied().unwrap_or_default();
    let name = leaf(VENDOR);
    let vendor: Vec<u8> = [name.ebx, name.edx, name.ecx].iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut hash = Sha256::new();
    for entry in entries {
        let kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, .. } = *entry;
        let words = match function {
            TOPOLOGY | TOPOLOGY_2 | EXTENDED_TOPOLOGY => continue,
            // Its highest byte is an APIC id.
            FEATURES => [function, index, eax, ebx & 0x00ff_ffff, ecx, edx],
            _ => [function, index, eax, ebx, ecx, edx],
        };
        words.iter().for_each(|word| hash.update(word.to_le_bytes()));
    }
    let features: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let vendor: String = vendor.iter().map(|b| char::from(*b)).filter(char::is_ascii_graphic).collect();
    format!("{vendor} {:#x} {features}", leaf(FEATURES).eax)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2021-29657: a guest with a hypervisor's instructions has the host's KVM emulate them.
    #[test]
    fn no_vcpu_can_be_a_hypervisor_whatever_the_host_can() {
        let all = |function| kvm_cpuid_entry2 {
            function,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        };
        let host = CpuId::from_entries(&[0, 1, 4, 7, 0xb, 0x8000_0001, 0x8000_000a].map(all)).unwrap();
        for (id, count) in [(0, 1), (3, 4)] {
            let guest = for_vcpu(&host, id, count);
            for entry in guest.as_slice() {
                match entry.function {
                    FEATURES => assert_eq!(entry.ecx & (VMX | HYPERVISOR), HYPERVISOR),
                    EXTENDED_FEATURES => assert_eq!(entry.ecx & SVM, 0),
                    _ => {}
                }
            }
        }
    }
}
