// SPDX-License-Identifier: Apache-2.0
//! How the boot processor begins: in long mode, paging on, at the kernel's 64-bit entry
//! (`Documentation/arch/x86/boot.rst`, "64-bit boot protocol"). The others wait for INIT and SIPI.

use super::layout;
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

const PAGE_PRESENT_WRITABLE: u64 = 0b11;
const PAGE_HUGE: u64 = 1 << 7;

/// Selectors 0x10 and 0x18, as the boot protocol wants them (`__BOOT_CS`, `__BOOT_DS`).
const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Writes the descriptor table and page tables that map the first GiB to itself.
pub(crate) fn write_tables(memory: &GuestMemoryMmap<()>) -> Result<(), vm_memory::GuestMemoryError> {
    for (at, entry) in (layout::GDT..).step_by(8).zip(GDT) {
        memory.write_obj(entry, GuestAddress(at))?;
    }
    memory.write_obj(layout::PDPT | PAGE_PRESENT_WRITABLE, GuestAddress(layout::PML4))?;
    memory.write_obj(layout::PD | PAGE_PRESENT_WRITABLE, GuestAddress(layout::PDPT))?;
    let mut directory = [0u8; 4096];
    for (page, slot) in (0u64..).zip(directory.chunks_exact_mut(8)) {
        slot.copy_from_slice(&((page << 21) | PAGE_PRESENT_WRITABLE | PAGE_HUGE).to_le_bytes());
    }
    memory.write_slice(&directory, GuestAddress(layout::PD))
}

/// Puts the boot processor at `entry`.
pub(crate) fn set_registers(vcpu: &VcpuFd, entry: u64) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    let code = segment(0x10, 0xb, true);
    let data = segment(0x18, 0x3, false);
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = 31;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = layout::PML4;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: entry,
        rsi: layout::ZERO_PAGE,
        rsp: layout::BOOT_STACK,
        rbp: layout::BOOT_STACK,
        rflags: 2,
        ..Default::default()
    })
}

fn segment(selector: u16, type_: u8, code: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        ..Default::default()
    }
}
