// SPDX-License-Identifier: Apache-2.0
//! How much of the guest's memory KVM knows of. All of it is mapped here from the start, which costs nothing; telling KVM
//! costs up to half a millisecond a GiB, so it is told when the guest asks.
//!
//! ```text
//!   of memory, hole left out:  0        open                 asked for             all of it
//!                              ├─────────┼────────────────────┼─────────────────────┤
//!   at assembly:               │ slot 0  │       held: known to the guest, not yet used         │
//!   the guest asks:            │ slot 0  │       slot 1       │        held         │
//!   a machine restored so:     │          slot 0              │        held         │
//!
//!   guest-physical:   0 ─────── 3 GiB ── hole ── 4 GiB ───────     a range across the hole is two slots
//! ```
//!
//! The guest's kernel asks (patch 0009) by writing to a port how many MiB there have to be, and goes on when they are there.
//! A kernel that cannot ask has a note less in its file (`elf::can_ask`), and all its memory from the start.

use crate::arch::layout;
use crate::memory::GuestMemory;
use crate::raw;
use kvm_ioctls::VmFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a kernel needs at boot for a start, in MiB: itself, the agent, and room until it asks.
const BASE: u32 = 48;
/// 16 MiB of struct pages for each GiB.
const STRUCT_PAGES: u32 = 64;
/// The largest block of the guest's allocator: what it can be given.
const BLOCK: u32 = 4;
/// KVM keeps 10 bytes for each page it knows of, used or not.
const LEAST: u32 = 64;
/// Each step is as large as all before, so that 1 TiB takes 15; a guest that asks for less at a time gets no further.
const MAX_SLOTS: u32 = 32;

/// How many MiB of `memory` are open at boot.
pub(crate) fn at_boot(memory: u32) -> u32 {
    (BASE + memory / STRUCT_PAGES).next_multiple_of(BLOCK).max(LEAST).min(memory)
}

/// Where the MiB from `from` until `until` lie: `(address, length)`.
fn pieces(from: u32, until: u32) -> Vec<(u64, u64)> {
    let mut before = u64::from(from) << 20;
    let mut rest = layout::memory_ranges(u64::from(until) << 20);
    for (at, len) in &mut rest {
        let cut = before.min(*len);
        before -= cut;
        *at += cut;
        *len -= cut;
    }
    rest.retain(|(_, len)| *len > 0);
    rest
}

/// Where a request leaves off, if it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    /// In MiB.
    open: u32,
    slots: u32,
}

impl Extent {
    /// The slots that have to be added so that `asked` MiB of `memory` are open; `None` if it is not a request.
    fn step(self, asked: u32, memory: u32) -> Option<Vec<(u64, u64)>> {
        let new = asked > self.open && asked <= memory && self.slots + 2 <= MAX_SLOTS;
        new.then(|| pieces(self.open, asked))
    }
}

/// The slots of one machine. `vm` goes before the memory it uses.
#[derive(Debug)]
pub(crate) struct Slots {
    vm: Arc<VmFd>,
    memory: GuestMemory,
    /// In MiB.
    size: u32,
    extent: Mutex<Extent>,
}

impl Slots {
    /// Tells KVM of the first `open` of `size` MiB.
    pub(crate) fn new(
        vm: Arc<VmFd>,
        memory: GuestMemory,
        size: u32,
        open: u32,
    ) -> Result<Self, kvm_ioctls::Error> {
        let slots = Self { vm, memory, size, extent: Mutex::new(Extent { open: 0, slots: 0 }) };
        slots.ask(open)?;
        Ok(slots)
    }

    /// The guest needs its first `asked` MiB. What it may not have, or has, is not an error: it only harms itself.
    pub(crate) fn ask(&self, asked: u32) -> Result<(), kvm_ioctls::Error> {
        let mut extent = self.extent();
        for (at, len) in extent.step(asked, self.size).unwrap_or_default() {
            raw::set_slot(&self.vm, &self.memory, extent.slots, (at, len))?;
            extent.slots += 1;
            extent.open += u32::try_from(len >> 20).unwrap_or(u32::MAX);
        }
        Ok(())
    }

    /// How many MiB are open.
    pub(crate) fn open(&self) -> u32 {
        self.extent().open
    }

    fn extent(&self) -> MutexGuard<'_, Extent> {
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MAX_MEMORY_MIB, MIN_MEMORY_MIB};

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_is_open_at_boot_holds_the_struct_pages_and_is_whole_blocks() {
        let open = [32, 64, 130, 256, 1024, 8192, MAX_MEMORY_MIB].map(at_boot);
        assert_eq!(open, [32, 64, 64, 64, 64, 176, 16432]);
        for memory in MIN_MEMORY_MIB..=20_000 {
            let open = at_boot(memory);
            assert!(
                open == memory || open < memory && open.is_multiple_of(BLOCK) && open >= memory / 64 + BASE
            );
        }
    }

    #[test]
    fn a_range_goes_around_the_hole() {
        assert_eq!(pieces(0, 128), [(0, GIB / 8)]);
        assert_eq!(pieces(2048, 3072), [(2 * GIB, GIB)]);
        assert_eq!(pieces(2048, 4096), [(2 * GIB, GIB), (4 * GIB, GIB)]);
        assert_eq!(pieces(3072, 4096), [(4 * GIB, GIB)]);
        assert_eq!(pieces(4096, 6144), [(5 * GIB, 2 * GIB)]);
        assert_eq!(pieces(0, 4096), [(0, 3 * GIB), (4 * GIB, GIB)]);
    }

    /// What the kernel asks for at least, in MiB.
    const STEP: u32 = 128;

    /// The kernel's rule, from `at_boot` on.
    #[test]
    fn every_machine_gets_all_its_memory_in_few_slots_and_no_byte_twice() {
        for memory in [32, 128, 129, 256, 1000, 3072, 3073, 4096, 8192, 65_536, MAX_MEMORY_MIB] {
            let (mut extent, mut next, mut total) = (Extent { open: 0, slots: 0 }, at_boot(memory), 0);
            let mut all = Vec::new();
            while extent.open < memory {
                let step = extent.step(next, memory).unwrap();
                extent = Extent { open: next, slots: extent.slots + u32::try_from(step.len()).unwrap() };
                next = next.saturating_add(next.max(STEP)).min(memory);
                total += step.iter().map(|(_, len)| len).sum::<u64>();
                all.extend(step);
            }
            assert_eq!(total, u64::from(memory) << 20);
            assert!(extent.slots <= 16, "{memory}: {}", extent.slots);
            assert!(all.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0), "{all:x?}");
        }
    }

    #[test]
    fn less_than_there_is_more_than_there_can_be_and_too_often_are_no_requests() {
        let extent = Extent { open: 128, slots: 1 };
        for asked in [0, 1, 127, 128, 257, u32::MAX] {
            assert_eq!(extent.step(asked, 256), None, "{asked}");
        }
        assert_eq!(Extent { slots: MAX_SLOTS - 1, ..extent }.step(256, 256), None);
        assert_eq!(extent.step(256, 256), Some(vec![(128 << 20, 128 << 20)]));
    }
}
