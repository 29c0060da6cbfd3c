// SPDX-License-Identifier: Apache-2.0
//! What must lie in the guest's memory before its first instruction.

pub(crate) mod cmdline;
pub(crate) mod elf;
pub(crate) mod symbols;

use crate::arch::{layout, mptable, start, zeropage};
use crate::config::{MAX_CMDLINE, MachineConfig};
use crate::memory::{GuestMemory, MemoryError};
use std::fs::File;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

#[derive(Debug, Error)]
pub(crate) enum BootError {
    #[error("the kernel cannot be used")]
    Kernel(#[from] elf::ElfError),
    #[error("cannot put the kernel into memory")]
    Memory(#[from] MemoryError),
    #[error("cannot write to the guest's memory")]
    Write(#[from] GuestMemoryError),
    #[error("the kernel command line has {0} bytes, more than the kernel takes")]
    CommandLine(usize),
}

/// Loads kernel, tables and command line; gives the entry address.
pub(crate) fn load(
    memory: &GuestMemory,
    kernel: &File,
    config: &MachineConfig,
    cmdline: &str,
) -> Result<u64, BootError> {
    if cmdline.len() > MAX_CMDLINE {
        return Err(BootError::CommandLine(cmdline.len()));
    }
    let entry = elf::load(memory, kernel)?;
    start::write_tables(memory)?;
    memory.write_slice(&mptable::build(config.vcpus, layout::LINES), GuestAddress(layout::MP_TABLE))?;
    memory.write_slice(cmdline.as_bytes(), GuestAddress(layout::CMDLINE))?;
    let params = zeropage::build(u64::from(config.memory_mib) << 20, cmdline.len());
    memory.write_obj(params, GuestAddress(layout::ZERO_PAGE))?;
    Ok(entry)
}
