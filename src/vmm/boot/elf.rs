// SPDX-License-Identifier: Apache-2.0
//! Puts an uncompressed ELF kernel into the guest's memory, as its program headers say.
//!
//! Whole pages are mapped from the file, copy-on-write; only the ragged last page of a segment is copied, for what
//! follows it in the file must not be seen in the guest. Everything the file says is checked against its length.

use crate::memory::{self, FilePages, GuestMemory};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};

const PAGE_LEN: usize = 4096;
const PAGE: u64 = PAGE_LEN as u64;
const HEADER_LEN: usize = 64;
const PROGRAM_HEADER_LEN: u16 = 56;
const MACHINE_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Of a note segment, no more is looked at.
const MAX_NOTES: usize = 4096;
/// A note of four bytes (version 1), of type 1, by "isopod".
const CAN_ASK: &[u8] = b"\x07\0\0\0\x04\0\0\0\x01\0\0\0isopod\0\0\x01\0\0\0";
/// More than any kernel has.
const MAX_SEGMENTS: u16 = 64;

#[derive(Debug, Error)]
pub(crate) enum ElfError {
    #[error("it is not an uncompressed 64-bit x86-64 ELF file")]
    NotAKernel,
    #[error("its file is cut off: {what} ends at byte {end}, the file at {len}")]
    Truncated { what: &'static str, end: u64, len: u64 },
    #[error("its segment {number} is not one that can be loaded")]
    Segment { number: usize },
    #[error("cannot read it")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Memory(#[from] memory::MemoryError),
    #[error("it does not fit into the guest's memory")]
    Write(#[from] vm_memory::GuestMemoryError),
}

struct Segment {
    offset: u64,
    guest: u64,
    in_file: u64,
    in_memory: u64,
}

/// Loads `file`; gives its entry address.
pub(crate) fn load(memory: &GuestMemory, file: &File) -> Result<u64, ElfError> {
    let mut number = 0;
    walk(file, |kind, segment, len| {
        number += 1;
        if kind == PT_LOAD {
            check(&segment, number - 1, len)?;
            place(memory, file, &segment)?;
        }
        Ok(())
    })
}

/// Whether this kernel asks for memory when it needs it: then it has a note that says so (patch 0009).
pub(crate) fn can_ask(file: &File) -> bool {
    let mut can = false;
    let walked = walk(file, |kind, segment, _| {
        let mut notes = vec![0; usize::try_from(segment.in_file).unwrap_or(0).min(MAX_NOTES)];
        if kind == PT_NOTE && file.read_exact_at(&mut notes, segment.offset).is_ok() {
            // It is aligned to four bytes, as all that notes are made of.
            can |= notes.windows(CAN_ASK.len()).step_by(4).any(|note| note == CAN_ASK);
        }
        Ok(())
    });
    walked.is_ok() && can
}

/// Looks at each segment, with its kind and the file's length; gives the entry address.
fn walk(
    file: &File,
    mut look: impl FnMut(u32, Segment, u64) -> Result<(), ElfError>,
) -> Result<u64, ElfError> {
    let len = file.metadata().map_err(ElfError::Read)?.len();
    let header: [u8; HEADER_LEN] = read(file, 0, len, "its header")?;
    let is_kernel = header.starts_with(b"\x7fELF\x02\x01") && u16_at(&header, 18) == MACHINE_X86_64;
    let count = u16_at(&header, 56);
    if !is_kernel || u16_at(&header, 54) != PROGRAM_HEADER_LEN || count > MAX_SEGMENTS {
        return Err(ElfError::NotAKernel);
    }
    let table = u64_at(&header, 32);
    for number in 0..usize::from(count) {
        let at = table.saturating_add(number as u64 * u64::from(PROGRAM_HEADER_LEN));
        let raw: [u8; PROGRAM_HEADER_LEN as usize] = read(file, at, len, "its program headers")?;
        let segment = Segment {
            offset: u64_at(&raw, 8),
            guest: u64_at(&raw, 24),
            in_file: u64_at(&raw, 32),
            in_memory: u64_at(&raw, 40),
        };
        look(u32_at(&raw, 0), segment, len)?;
    }
    Ok(u64_at(&header, 24))
}

fn check(segment: &Segment, number: usize, len: u64) -> Result<(), ElfError> {
    let Segment { offset, guest, in_file, in_memory } = *segment;
    let bad = ElfError::Segment { number };
    if in_file > in_memory || guest.checked_add(in_memory).is_none() {
        return Err(bad);
    }
    let end = offset.checked_add(in_file).ok_or(bad)?;
    if end > len {
        return Err(ElfError::Truncated { what: "a segment", end, len });
    }
    Ok(())
}

fn place(memory: &GuestMemory, file: &File, segment: &Segment) -> Result<(), ElfError> {
    let Segment { offset, guest, in_file, in_memory } = *segment;
    // What the segment only reserves is zero already; that it is there at all shows here, not in the guest.
    if in_memory > 0 {
        memory.write_obj(0u8, GuestAddress(guest + in_memory - 1))?;
    }
    let mappable = offset % PAGE == 0 && guest % PAGE == 0;
    let mapped = if mappable { in_file & !(PAGE - 1) } else { 0 };
    memory::map_file(memory, file, FilePages { guest, offset, len: mapped })?;
    let mut buf = [0u8; PAGE_LEN];
    let mut done = mapped;
    while done < in_file {
        let n = usize::try_from((in_file - done).min(PAGE)).unwrap_or(buf.len());
        file.read_exact_at(&mut buf[..n], offset + done).map_err(ElfError::Read)?;
        memory.write_slice(&buf[..n], GuestAddress(guest + done))?;
        done += n as u64;
    }
    Ok(())
}

fn read<const N: usize>(file: &File, at: u64, len: u64, what: &'static str) -> Result<[u8; N], ElfError> {
    let end = at.saturating_add(N as u64);
    if end > len {
        return Err(if at == 0 && len < 4 {
            ElfError::NotAKernel
        } else {
            ElfError::Truncated { what, end, len }
        });
    }
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).map_err(ElfError::Read)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::time::{Duration, Instant};

    /// An ELF file with one segment of `code` for address 0x100000 that reserves `in_memory` bytes.
    fn kernel(code: &[u8], in_memory: u64) -> Vec<u8> {
        let mut out = vec![0u8; 4096];
        out[..6].copy_from_slice(b"\x7fELF\x02\x01");
        out[18] = 62;
        out[24..32].copy_from_slice(&0x10_0000u64.to_le_bytes());
        out[32] = 64;
        out[54] = 56;
        out[56] = 1;
        out[64] = 1;
        out[64 + 8..64 + 16].copy_from_slice(&4096u64.to_le_bytes());
        out[64 + 24..64 + 32].copy_from_slice(&0x10_0000u64.to_le_bytes());
        out[64 + 32..64 + 40].copy_from_slice(&(code.len() as u64).to_le_bytes());
        out[64 + 40..64 + 48].copy_from_slice(&in_memory.to_le_bytes());
        out.extend_from_slice(code);
        out
    }

    fn load_bytes(bytes: &[u8]) -> (GuestMemory, Result<u64, ElfError>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let memory = memory::new(32).unwrap();
        let loaded = load(&memory, &file);
        (memory, loaded)
    }

    #[test]
    fn pages_and_the_ragged_end_both_arrive_and_nothing_after_them() {
        let code: Vec<u8> = (0..10_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut file = kernel(&code, 20_000);
        file.extend_from_slice(&[0xee; 9000]);
        let (memory, entry) = load_bytes(&file);
        let mut got = vec![0; 20_000];
        memory.read_slice(&mut got, GuestAddress(0x10_0000)).unwrap();
        assert_eq!(entry.unwrap(), 0x10_0000);
        assert!(got[..10_000] == code && got[10_000..].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        let whole = kernel(&[7; 5000], 5000);
        for len in [0, 3, 40, 70, 119, 4096, whole.len() - 1] {
            assert!(load_bytes(&whole[..len]).1.is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_kernel_that_can_ask_says_so_in_a_note_and_no_other_is_taken_for_one() {
        let can = |segment: &[u8], kind: u8| {
            let mut bytes = kernel(segment, segment.len() as u64);
            bytes[64] = kind;
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            can_ask(&file)
        };
        let other = b"\x04\0\0\0\x04\0\0\0\x03\0\0\0GNU\0\x01\x02\x03\x04";
        assert!(can(&[other, CAN_ASK].concat(), 4));
        assert!(!can(other, 4) && !can(b"", 4) && !can(CAN_ASK, 1));
        assert!(!can(&CAN_ASK[..CAN_ASK.len() - 1], 4));
        let mut newer = CAN_ASK.to_vec();
        newer[20] = 2;
        assert!(!can(&newer, 4));
    }

    #[test]
    fn a_segment_beyond_memory_is_refused() {
        assert!(load_bytes(&kernel(&[7; 10], 64 << 20)).1.is_err());
        assert!(load_bytes(&kernel(&[7; 10], u64::MAX)).1.is_err());
    }

    /// Longest a file may take, on a busy machine.
    const LIMIT: Duration = Duration::from_secs(1);

    fn assert_ends(bytes: &[u8]) {
        let began = Instant::now();
        drop(load_bytes(bytes));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        can_ask(&file);
        assert!(began.elapsed() < LIMIT, "it took {:?}", began.elapsed());
    }

    proptest! {
        /// The class of RUSTSEC-2024-0428 and linux-loader's endless loop: numbers of a header that add up to anything.
        #[test]
        fn no_header_makes_it_panic_or_go_on_for_ever(
            words in prop::collection::vec((0usize..15, prop_oneof![any::<u64>(), 0u64..0x300_0000, Just(u64::MAX)]), 0..6),
            halves in prop::collection::vec((prop_oneof![16usize..64, 64usize..72], any::<u16>()), 0..3),
            tail in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let mut file = kernel(&tail, 20_000);
            for (word, value) in words {
                file[8 * word..8 * word + 8].copy_from_slice(&value.to_le_bytes());
            }
            file[..6].copy_from_slice(b"\x7fELF\x02\x01");
            file[18] = 62;
            for (at, value) in halves {
                file[at..at + 2].copy_from_slice(&value.to_le_bytes());
            }
            assert_ends(&file);
        }
    }
}
