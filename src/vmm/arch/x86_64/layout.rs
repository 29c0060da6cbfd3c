// SPDX-License-Identifier: Apache-2.0
//! Guest-physical addresses.
//!
//! ```text
//!  0x0000_0500  GDT                          0x0009_fc00  MP table, to 640 KiB
//!  0x0000_7000  zero page                    0x0010_0000  the kernel's memory
//!  0x0000_9000  page tables (3 pages)        0xc000_0000  the MMIO hole, to 4 GiB
//!  0x0002_0000  command line                 0xd000_0000    virtio-mmio, 4 KiB each
//!                                            0xfec0_0000    IOAPIC      0xfee0_0000  local APICs
//!                                         0x1_0000_0000  memory beyond 3 GiB
//! ```

use std::ops::Range;

pub(crate) const GDT: u64 = 0x500;
pub(crate) const ZERO_PAGE: u64 = 0x7000;
pub(crate) const BOOT_STACK: u64 = 0x8ff0;
pub(crate) const PML4: u64 = 0x9000;
pub(crate) const PDPT: u64 = 0xa000;
pub(crate) const PD: u64 = 0xb000;
pub(crate) const CMDLINE: u64 = 0x20000;
/// The last KiB of base memory, where the kernel looks for an MP table among the first places.
pub(crate) const MP_TABLE: u64 = 0x9fc00;
pub(crate) const HIGH_MEMORY: u64 = 0x10_0000;
pub(crate) const HOLE_START: u64 = 0xc000_0000;
pub(crate) const HOLE_END: u64 = 0x1_0000_0000;
pub(crate) const VIRTIO_MMIO: u64 = 0xd000_0000;
pub(crate) const VIRTIO_MMIO_SIZE: u64 = 0x1000;
pub(crate) const IOAPIC: u32 = 0xfec0_0000;
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// The first interrupt line of a virtio device; those below are the legacy devices'.
pub(crate) const VIRTIO_IRQ: u32 = 5;

pub(crate) const SERIAL_PORT: u16 = 0x3f8;
pub(crate) const SERIAL_IRQ: u32 = 4;
/// The interrupt lines that something is on: the console's and the virtio devices'.
pub(crate) const LINES: Range<u8> = 4..9;
/// The keyboard controller's command port, whose command 0xfe resets the machine.
pub(crate) const RESET_PORT: u16 = 0x64;
/// Where QEMU puts pvpanic; our kernel looks there.
pub(crate) const PVPANIC_PORT: u16 = 0x505;
/// Four bytes: how many MiB of its memory the guest is about to use (`slots`). Ours alone.
pub(crate) const MEMORY_PORT: u16 = 0x508;

/// Where `bytes` of memory lie: `(address, length)`, below the hole and above it.
pub(crate) fn memory_ranges(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= HOLE_START { vec![(0, bytes)] } else { vec![(0, HOLE_START), (HOLE_END, bytes - HOLE_START)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_around_the_hole() {
        assert_eq!(memory_ranges(HOLE_START), [(0, HOLE_START)]);
        assert_eq!(memory_ranges(HOLE_START + 4096), [(0, HOLE_START), (HOLE_END, 4096)]);
    }
}
