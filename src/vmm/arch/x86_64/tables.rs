// SPDX-License-Identifier: Apache-2.0
//! The guest's page tables (Intel SDM volume 3, 4.5), for what KVM_TRANSLATE does not tell: whether a page may be written.

use crate::memory::GuestMemory;
use kvm_bindings::kvm_sregs;
use vm_memory::{Bytes, GuestAddress};

const PAGE: u64 = 4096;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
/// Where the next table is, in an entry and in CR3.
const TABLE: u64 = 0x000f_ffff_ffff_f000;
/// CR4: five levels of tables.
const LA57: u64 = 1 << 12;

/// The first address of `len` bytes that is mapped, but not for writing. (CR0.WP is set, as Linux has it.)
pub(crate) fn read_only(memory: &GuestMemory, sregs: &kvm_sregs, address: u64, len: usize) -> Option<u64> {
    let last = address.wrapping_add(len as u64).wrapping_sub(1);
    let pages = (last / PAGE).wrapping_sub(address / PAGE).min(1 + len as u64 / PAGE);
    let firsts = (1..=pages).map(|n| (address / PAGE + n).wrapping_mul(PAGE));
    [address].into_iter().chain(firsts).find(|at| writable(memory, sregs, *at) == Some(false))
}

/// `None` if it is not mapped.
fn writable(memory: &GuestMemory, sregs: &kvm_sregs, address: u64) -> Option<bool> {
    let levels = if sregs.cr4 & LA57 == 0 { 4 } else { 5 };
    let mut table = sregs.cr3 & TABLE;
    for level in (0..levels).rev() {
        let index = address >> (12 + 9 * level) & 511;
        let entry: u64 = memory.read_obj(GuestAddress(table + 8 * index)).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        if entry & WRITABLE == 0 {
            return Some(false);
        }
        if level > 0 && entry & LARGE != 0 {
            return Some(true);
        }
        table = entry & TABLE;
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    const ROOT: u64 = 0x1000;

    fn put(memory: &GuestMemory, table: u64, index: u64, entry: u64) {
        memory.write_obj(entry, GuestAddress(table + 8 * index)).unwrap();
    }

    /// Three pages from 0x20_0000 on: one to write to, one to read, one that is not there; then a large one to write to.
    fn guest() -> (GuestMemory, kvm_sregs) {
        let memory = memory::new(32).unwrap();
        put(&memory, ROOT, 0, 0x2000 | WRITABLE | PRESENT);
        put(&memory, 0x2000, 0, 0x3000 | WRITABLE | PRESENT);
        put(&memory, 0x3000, 1, 0x4000 | WRITABLE | PRESENT);
        put(&memory, 0x3000, 2, 0x40_0000 | LARGE | WRITABLE | PRESENT);
        put(&memory, 0x4000, 0, 0x9000 | WRITABLE | PRESENT);
        put(&memory, 0x4000, 1, 0x9000 | PRESENT);
        (memory, kvm_sregs { cr3: ROOT, ..kvm_sregs::default() })
    }

    #[test]
    fn a_page_that_may_only_be_read_is_found_wherever_it_lies_in_the_range() {
        let (memory, sregs) = guest();
        let first = |address, len| read_only(&memory, &sregs, address, len);
        assert_eq!(first(0x20_0000, 4096), None);
        assert_eq!(first(0x20_0fc0, 576), Some(0x20_1000));
        assert_eq!(first(0x20_1040, 576), Some(0x20_1040));
        assert_eq!(first(0x20_2000, 4096), None, "not there: another fault");
        assert_eq!(first(0x40_0000, 8192), None);
    }

    #[test]
    fn tables_outside_the_guests_memory_are_no_tables() {
        let (memory, mut sregs) = guest();
        sregs.cr3 = TABLE;
        assert_eq!(read_only(&memory, &sregs, 0x20_1000, 8), None);
        assert_eq!(read_only(&memory, &sregs, u64::MAX - 7, 4096), None);
    }
}
