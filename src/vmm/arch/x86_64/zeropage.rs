// SPDX-License-Identifier: Apache-2.0
//! The zero page (`Documentation/arch/x86/boot.rst`): what a 64-bit kernel is told at its entry.

use super::layout;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const HEADER_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
const UNKNOWN_LOADER: u8 = 0xff;

/// The zero page of a machine with `memory` bytes and a command line of `cmdline_len` bytes at its place.
pub(crate) fn build(memory: u64, cmdline_len: usize) -> boot_params {
    let mut params = boot_params::default();
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.type_of_loader = UNKNOWN_LOADER;
    params.hdr.cmd_line_ptr = u32::try_from(layout::CMDLINE).expect("it lies below 1 MiB");
    params.hdr.cmdline_size = u32::try_from(cmdline_len).unwrap_or(u32::MAX);
    let entries = e820(memory);
    for (slot, entry) in params.e820_table.iter_mut().zip(&entries) {
        *slot = *entry;
    }
    params.e820_entries = u8::try_from(entries.len()).expect("there are four at most");
    params
}

fn e820(memory: u64) -> Vec<boot_e820_entry> {
    let entry = |addr, size, kind| boot_e820_entry { addr, size, r#type: kind };
    let mut entries = vec![
        entry(0, layout::MP_TABLE, E820_RAM),
        entry(layout::MP_TABLE, layout::HIGH_MEMORY - layout::MP_TABLE, E820_RESERVED),
    ];
    for (start, len) in layout::memory_ranges(memory) {
        let skip = layout::HIGH_MEMORY.saturating_sub(start);
        entries.push(entry(start + skip, len - skip, E820_RAM));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_memory_is_all_but_the_gap_below_1_mib() {
        let memory = 4 << 30;
        let ram: u64 = e820(memory).iter().filter(|e| e.r#type == E820_RAM).map(|e| e.size).sum();
        assert_eq!(ram, memory - (layout::HIGH_MEMORY - layout::MP_TABLE));
    }
}
