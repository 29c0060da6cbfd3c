// SPDX-License-Identifier: Apache-2.0
//! A descriptor chain (§2.7.5), checked whole before a device sees any of it.
//!
//! The table is the guest's and may change under our eyes: each descriptor is read once, judged, and kept as an
//! address and a length of ours. What is refused: an index outside the table, a loop, an indirect table (never offered),
//! a buffer of no bytes or not wholly in guest memory, a readable buffer behind a writable one (§2.7.4.2), more than
//! 4 GiB in all (§2.7.5.2). The *contents* of the buffers stay the guest's: copy once, then judge the copy.

use super::GuestMemory;
use thiserror::Error;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory as _, Permissions, VolatileSlice};

const DESCRIPTOR_LEN: u64 = 16;

/// Why a ring or a chain cannot be worked on; the device asks for a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Broken {
    #[error("the available ring's index is further ahead than the ring is long")]
    AvailableIndex,
    #[error("the ring's memory cannot be accessed")]
    Ring,
    #[error("a descriptor's index is outside the table")]
    Index,
    #[error("a chain has more descriptors than the table, so it has a loop")]
    Loop,
    #[error("an indirect descriptor, which was not negotiated")]
    Indirect,
    #[error("a buffer of no bytes")]
    Empty,
    #[error("a buffer outside guest memory")]
    Outside,
    #[error("a buffer for the device to read behind one to write")]
    Order,
    #[error("a chain of more than 4 GiB")]
    TooLong,
    #[error("the worker cannot wait for events")]
    Wait,
}

/// Buffers in guest memory, in the chain's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    addr: GuestAddress,
    len: u32,
}

/// A chain the driver made available. Every buffer is in guest memory; `Port::used` gives it back.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    segments: Vec<Segment>,
    readable: usize,
    readable_len: u32,
    writable_len: u32,
}

/// Where a descriptor table is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) addr: GuestAddress,
    pub(crate) size: u16,
}

impl Chain {
    /// Walks the chain that begins at `head`. `scratch` gives its memory to the chain, whatever it held is dropped.
    pub(crate) fn walk(
        memory: &GuestMemory,
        table: Table,
        head: u16,
        scratch: Buffer,
    ) -> Result<Self, Broken> {
        let mut segments = scratch.0;
        segments.clear();
        let mut chain = Self { head, segments, readable: 0, readable_len: 0, writable_len: 0 };
        let mut index = head;
        for _ in 0..table.size {
            let descriptor = table.read(memory, index)?;
            chain.push(memory, descriptor)?;
            if !descriptor.has_next() {
                return Ok(chain);
            }
            index = descriptor.next();
        }
        Err(Broken::Loop)
    }

    fn push(&mut self, memory: &GuestMemory, descriptor: Descriptor) -> Result<(), Broken> {
        let segment = Segment { addr: descriptor.addr(), len: descriptor.len() };
        if descriptor.refers_to_indirect_table() {
            return Err(Broken::Indirect);
        }
        if segment.len == 0 {
            return Err(Broken::Empty);
        }
        self.readable_len
            .checked_add(self.writable_len)
            .and_then(|sum| sum.checked_add(segment.len))
            .ok_or(Broken::TooLong)?;
        if !memory.check_range(segment.addr, widen(segment.len), Permissions::ReadWrite) {
            return Err(Broken::Outside);
        }
        if descriptor.is_write_only() {
            self.writable_len += segment.len;
        } else if self.writable_len > 0 {
            return Err(Broken::Order);
        } else {
            self.readable += 1;
            self.readable_len += segment.len;
        }
        self.segments.push(segment);
        Ok(())
    }

    pub fn head(&self) -> u16 {
        self.head
    }

    /// Bytes the driver wrote for the device.
    pub fn readable_len(&self) -> usize {
        widen(self.readable_len)
    }

    /// Bytes of room for the device's answer.
    pub fn writable_len(&self) -> usize {
        widen(self.writable_len)
    }

    /// Copies out what the driver wrote, from `at` on; gives how much there was.
    pub fn read(&self, memory: &GuestMemory, at: usize, buf: &mut [u8]) -> usize {
        let mut done = 0;
        for (addr, len) in pieces(&self.segments[..self.readable], at, buf.len()) {
            if memory.read_slice(&mut buf[done..done + len], addr).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// Copies `bytes` into the room for the answer, from `at` on; gives how much fitted.
    pub fn write(&self, memory: &GuestMemory, at: usize, bytes: &[u8]) -> usize {
        let mut done = 0;
        for (addr, len) in pieces(&self.segments[self.readable..], at, bytes.len()) {
            if memory.write_slice(&bytes[done..done + len], addr).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// `len` bytes of the room for the answer from `at` on, as memory: for reads straight into it.
    pub fn writable_slices<'m>(
        &self,
        memory: &'m GuestMemory,
        at: usize,
        len: usize,
    ) -> Vec<VolatileSlice<'m>> {
        slices(memory, &self.segments[self.readable..], at, len)
    }

    /// `len` bytes of what the driver wrote from `at` on, as memory: for writes straight from it.
    pub fn readable_slices<'m>(
        &self,
        memory: &'m GuestMemory,
        at: usize,
        len: usize,
    ) -> Vec<VolatileSlice<'m>> {
        slices(memory, &self.segments[..self.readable], at, len)
    }

    pub(crate) fn into_scratch(self) -> Buffer {
        Buffer(self.segments)
    }
}

/// The memory of a chain that was used, kept for the next one.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<Segment>);

impl Table {
    fn read(self, memory: &GuestMemory, index: u16) -> Result<Descriptor, Broken> {
        if index >= self.size {
            return Err(Broken::Index);
        }
        let addr = self.addr.checked_add(u64::from(index) * DESCRIPTOR_LEN).ok_or(Broken::Ring)?;
        memory.read_obj(addr).map_err(|_| Broken::Ring)
    }
}

/// The parts of `segments` that hold the bytes from `at` to `at + len`, as far as there are any.
fn pieces(segments: &[Segment], at: usize, len: usize) -> impl Iterator<Item = (GuestAddress, usize)> {
    let (mut skip, mut left) = (at, len);
    segments.iter().filter_map(move |segment| {
        let whole = widen(segment.len);
        let start = skip.min(whole);
        skip -= start;
        let take = left.min(whole - start);
        left -= take;
        let addr = segment.addr.unchecked_add(u64::try_from(start).ok()?);
        (take > 0).then_some((addr, take))
    })
}

fn slices<'m>(
    memory: &'m GuestMemory,
    segments: &[Segment],
    at: usize,
    len: usize,
) -> Vec<VolatileSlice<'m>> {
    let mut found = Vec::with_capacity(segments.len());
    for (addr, len) in pieces(segments, at, len) {
        let Ok(parts) = memory.get_slices(addr, len, Permissions::ReadWrite) else {
            break;
        };
        found.extend(parts.map_while(Result::ok));
    }
    found
}

/// A length in guest memory as one of ours; the machine is a 64-bit one.
fn widen(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
