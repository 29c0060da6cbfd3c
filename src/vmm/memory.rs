// SPDX-License-Identifier: Apache-2.0
//! The guest's memory: private to this process, and zero until touched or what a file says it is.
//!
//! Of a machine that boots the kernel's file is mapped in rather than read; of one that is restored all of the memory is a
//! mapped file. Mapping copy-on-write costs nothing per byte at start, and every machine on a host shares the pages that
//! its guest does not write to. One of the room's modules where `unsafe` lives.
#![expect(unsafe_code, reason = "mapping a file over a part of the guest's memory")]

use crate::arch::layout;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::fs::File;
use std::io;
use thiserror::Error;
use vm_memory::mmap::FromRangesError;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

pub(crate) type GuestMemory = GuestMemoryMmap<()>;

const PAGE: u64 = 4096;

#[derive(Debug, Error)]
pub(crate) enum MemoryError {
    #[error("cannot map {mib} MiB of guest memory")]
    Map { mib: u64, source: FromRangesError },
    #[error("the kernel does not fit into the guest's memory: {start:#x} to {end:#x} of {have:#x} bytes")]
    TooSmall { start: u64, end: u64, have: u64 },
    #[error("cannot map the kernel's file into the guest's memory")]
    MapFile(#[source] io::Error),
}

/// `mib` MiB around the MMIO hole.
pub(crate) fn new(mib: u32) -> Result<GuestMemory, MemoryError> {
    let bytes = u64::from(mib) << 20;
    let ranges: Vec<_> = layout::memory_ranges(bytes)
        .into_iter()
        .map(|(at, len)| (GuestAddress(at), usize::try_from(len).unwrap_or(usize::MAX)))
        .collect();
    GuestMemoryMmap::from_ranges(&ranges).map_err(|source| MemoryError::Map { mib: u64::from(mib), source })
}

/// `mib` MiB around the MMIO hole, which begin as the bytes of `file` from `offset` on. The file need not stay open.
///
/// The file must hold them all, and keep them: a machine whose file is cut short ends.
pub(crate) fn of_file(mib: u32, file: &File, mut offset: u64) -> Result<GuestMemory, MemoryError> {
    let memory = new(mib)?;
    for (guest, len) in layout::memory_ranges(u64::from(mib) << 20) {
        map_file(&memory, file, FilePages { guest, offset, len })?;
        offset += len;
    }
    Ok(memory)
}

/// Whole pages of a file, and where the guest shall find them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FilePages {
    pub(crate) guest: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Maps pages of `file` over the guest's memory, copy-on-write.
///
/// The file must hold them all: a page beyond its end would kill this process with SIGBUS when touched.
pub(crate) fn map_file(memory: &GuestMemory, file: &File, pages: FilePages) -> Result<(), MemoryError> {
    let FilePages { guest, offset, len } = pages;
    let too_small = || MemoryError::TooSmall {
        start: guest,
        end: guest.saturating_add(len),
        have: memory.last_addr().0 + 1,
    };
    if len == 0 {
        return Ok(());
    }
    debug_assert!(guest % PAGE == 0 && offset % PAGE == 0 && len % PAGE == 0);
    let region = memory.find_region(GuestAddress(guest)).ok_or_else(too_small)?;
    let into = guest - region.start_addr().0;
    if region.len() - into < len {
        return Err(too_small());
    }
    let at = region.get_host_address(MemoryRegionAddress(into)).map_err(|_| too_small())?;
    let len = usize::try_from(len).map_err(|_| too_small())?;
    let (prot, flags) =
        (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE);
    // SAFETY: `at..at+len` lies inside the mapping that `region` owns (checked above) and which is unmapped as one range
    // when it goes; no reference into guest memory exists, only volatile accesses through `region`.
    unsafe { mmap(at.cast(), len, prot, flags, file, offset) }.map_err(|e| MemoryError::MapFile(e.into()))?;
    Ok(())
}
