// SPDX-License-Identifier: Apache-2.0
//! Which function of the kernel an address lies in, by the symbol table of its file. Asked only when a machine has died.

use std::fs::File;
use std::os::unix::fs::FileExt;

const SECTION_HEADER_LEN: usize = 64;
const SHT_SYMTAB: u32 = 2;
const SYMBOL_LEN: usize = 24;
/// A kernel's table has some ten thousand symbols, 24 bytes each.
const MAX_TABLE: u64 = 64 << 20;

/// `name+0xoffset`, if the file has symbols and one of them is at or before the address.
pub(crate) fn name(kernel: &File, address: u64) -> Option<String> {
    let mut header = [0u8; 64];
    kernel.read_exact_at(&mut header, 0).ok()?;
    let sections = number(&header, 40, 8)?;
    let count = number(&header, 60, 2)?.min(1024);
    let section = |index: u64| -> Option<[u8; SECTION_HEADER_LEN]> {
        let mut raw = [0; SECTION_HEADER_LEN];
        kernel.read_exact_at(&mut raw, sections.checked_add(index * SECTION_HEADER_LEN as u64)?).ok()?;
        Some(raw)
    };
    let symtab = (0..count).filter_map(section).find(|s| number(s, 4, 4) == Some(u64::from(SHT_SYMTAB)))?;
    let table = contents(kernel, &symtab)?;
    let names = contents(kernel, &section(number(&symtab, 40, 4)?)?)?;
    let (start, name_at) = table
        .chunks_exact(SYMBOL_LEN)
        .filter_map(|symbol| Some((number(symbol, 8, 8)?, number(symbol, 0, 4)?)))
        .filter(|(value, name)| *value <= address && *value != 0 && *name != 0)
        .max()?;
    let rest = names.get(usize::try_from(name_at).ok()?..)?;
    let name = rest.split(|b| *b == 0).next()?;
    Some(format!("{}+{:#x}", String::from_utf8_lossy(name), address - start))
}

fn contents(kernel: &File, section: &[u8]) -> Option<Vec<u8>> {
    let (offset, size) = (number(section, 24, 8)?, number(section, 32, 8)?);
    let mut bytes = vec![0; usize::try_from(size).ok().filter(|_| size <= MAX_TABLE)?];
    kernel.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let raw = bytes.get(at..at + len)?;
    Some(raw.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}
