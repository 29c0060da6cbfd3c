// SPDX-License-Identifier: Apache-2.0
//! The MP table (Intel MultiProcessor Specification 1.4, chapter 4): processors, the IOAPIC and its lines.
//!
//! Without one the kernel scans 64 KiB of low memory for it and then does without an IOAPIC.

use super::layout;
use std::ops::Range;

const ISA_BUS: u8 = 0;

/// Floating pointer and table, to be put at `layout::MP_TABLE`.
///
/// Only `lines` are listed: the kernel sets up each one that is.
pub(crate) fn build(vcpus: u8, lines: Range<u8>) -> Vec<u8> {
    let table = table(vcpus, lines);
    let table_at = u32::try_from(layout::MP_TABLE).expect("it lies below 1 MiB") + 16;
    let mut out = Vec::with_capacity(16 + table.len());
    out.extend_from_slice(b"_MP_");
    out.extend_from_slice(&table_at.to_le_bytes());
    // Length in paragraphs, version 1.4, checksum, five feature bytes (0: a table is present, no IMCR).
    out.extend_from_slice(&[1, 4, 0, 0, 0, 0, 0, 0]);
    out[10] = checksum(&out);
    out.extend_from_slice(&table);
    out
}

fn table(vcpus: u8, lines: Range<u8>) -> Vec<u8> {
    let ioapic_id = vcpus;
    let mut entries = Vec::new();
    let mut count = 0u16;
    let mut entry = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for cpu in 0..vcpus {
        // Type 0: enabled, and whether it is the one that boots; family 6, with an APIC and an FPU.
        let flags = if cpu == 0 { 0b11 } else { 0b01 };
        entry(&[0, cpu, 0x14, flags, 0, 6, 0, 0, 0x01, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    entry(&[&[1, ISA_BUS][..], b"ISA   "].concat());
    entry(&[&[2, ioapic_id, 0x11, 1][..], &layout::IOAPIC.to_le_bytes()].concat());
    for line in lines {
        // Type 3: interrupt (INT), polarity and trigger as the ISA bus has them (high, edge).
        entry(&[3, 0, 0, 0, ISA_BUS, line, ioapic_id, line]);
    }
    // Type 4: ExtINT on LINT0 of the boot processor, NMI on LINT1 of all.
    entry(&[4, 3, 0, 0, ISA_BUS, 0, 0, 0]);
    entry(&[4, 1, 0, 0, ISA_BUS, 0, 0xff, 1]);

    let length = u16::try_from(44 + entries.len()).expect("255 processors fit");
    let mut out = Vec::new();
    out.extend_from_slice(b"PCMP");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[4, 0]);
    out.extend_from_slice(b"ISOPOD  MICROVM     ");
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&layout::LOCAL_APIC.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&entries);
    out[7] = checksum(&out);
    out
}

/// The byte that makes the sum of all bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_VCPUS;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |s, b| s.wrapping_add(*b))
    }

    #[test]
    fn pointer_and_table_sum_to_zero() {
        let all = build(2, 4..9);
        assert_eq!((sum(&all[..16]), sum(&all[16..])), (0, 0));
    }

    #[test]
    fn the_largest_table_fits_below_640_kib() {
        assert!(build(MAX_VCPUS, 0..24).len() <= 1024);
    }
}
