// SPDX-License-Identifier: Apache-2.0
//! The registers of one queue, and the one door through which they become a queue a device works on.
//!
//! ```text
//!    open ──── QueueReady = 1, and all of it valid ────► ready ──── DRIVER_OK ────► bound to the device
//!     ▲  registers may be written                          │  registers stand still
//!     └──────────────── QueueReady = 0, or reset ──────────┘
//! ```

use crate::virtio::{GuestMemory, features};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

/// A half of a 64-bit address, as it is written (§4.2.2).
#[derive(Debug, Clone, Copy)]
pub(super) enum Half {
    Low,
    High,
}

/// Which part of the ring an address is of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Descriptors,
    Driver,
    Device,
}

/// What about a queue does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueField {
    Max,
    Size,
    Descriptors,
    Driver,
    Device,
    Ready,
}

impl Display for QueueField {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Max => "max",
            Self::Size => "size",
            Self::Descriptors => "descriptors",
            Self::Driver => "driver",
            Self::Device => "device",
            Self::Ready => "ready",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueRegisters {
    max: u16,
    size: u32,
    descriptors: u64,
    driver: u64,
    device: u64,
    ready: bool,
}

impl QueueRegisters {
    pub(super) fn new(max: u16) -> Self {
        Self { max, size: 0, descriptors: 0, driver: 0, device: 0, ready: false }
    }

    pub(super) fn max(&self) -> u16 {
        self.max
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn set_size(&mut self, size: u32) {
        if !self.ready {
            self.size = size;
        }
    }

    pub(super) fn set_address(&mut self, part: Part, half: Half, value: u32) {
        if self.ready {
            return;
        }
        let address = match part {
            Part::Descriptors => &mut self.descriptors,
            Part::Driver => &mut self.driver,
            Part::Device => &mut self.device,
        };
        *address = match half {
            Half::Low => *address & !u64::from(u32::MAX) | u64::from(value),
            Half::High => *address & u64::from(u32::MAX) | u64::from(value) << 32,
        };
    }

    /// The driver says the queue is set up (1) or wants it back (0). What is not valid does not become ready.
    pub(super) fn set_ready(&mut self, value: u32, memory: &GuestMemory) {
        self.ready = value == 1 && self.build(memory, 0).is_ok();
    }

    /// The queue these registers describe, if everything about it holds (§2.7); else what does not.
    pub(super) fn build(&self, memory: &GuestMemory, accepted: u64) -> Result<Queue, QueueField> {
        let mut queue = Queue::new(self.max).map_err(|_| QueueField::Max)?;
        let size = u16::try_from(self.size).map_err(|_| QueueField::Size)?;
        queue.try_set_size(size).map_err(|_| QueueField::Size)?;
        queue
            .try_set_desc_table_address(GuestAddress(self.descriptors))
            .map_err(|_| QueueField::Descriptors)?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver)).map_err(|_| QueueField::Driver)?;
        queue.try_set_used_ring_address(GuestAddress(self.device)).map_err(|_| QueueField::Device)?;
        let entries = usize::from(size);
        let parts = [
            (self.descriptors, 16 * entries, QueueField::Descriptors),
            (self.driver, 6 + 2 * entries, QueueField::Driver),
            (self.device, 6 + 8 * entries, QueueField::Device),
        ];
        for (address, len, field) in parts {
            // An available ring at address 0 counts as not set up in virtio-queue, and nothing of Linux is there.
            if address == 0 || !memory.check_range(GuestAddress(address), len, Permissions::ReadWrite) {
                return Err(field);
            }
        }
        queue.set_event_idx(accepted & features::EVENT_IDX != 0);
        queue.set_ready(true);
        Ok(queue)
    }
}
