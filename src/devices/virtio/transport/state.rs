// SPDX-License-Identifier: Apache-2.0
//! All there is to know of a paused device and its registers, as one plain value.

use super::registers::Registers;
use crate::virtio::DeviceState;
use crate::virtio::interrupt::InterruptState;
use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueT};

/// Made by `MmioTransport::save`. It means something only together with the guest's memory of the same moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    /// The device's number in §5.
    pub(super) kind: u32,
    pub(super) registers: Registers,
    /// One for each queue while the device is to go on, else none.
    pub(super) positions: Vec<Position>,
    pub(super) interrupt: InterruptState,
    pub(super) device: DeviceState,
}

/// How far a device has come in a queue. Whether it goes by EVENT_IDX is among the accepted features, and what it used
/// since it last looked whether to interrupt is nothing: every stop comes behind that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    next_avail: u16,
    next_used: u16,
}

impl Position {
    pub(super) fn of(queue: &Queue) -> Self {
        Self { next_avail: queue.next_avail(), next_used: queue.next_used() }
    }

    /// Any will do: a position that is not the driver's is found out when the ring is looked at, as if the driver had lied.
    pub(super) fn apply(self, queue: &mut Queue) {
        queue.set_next_avail(self.next_avail);
        queue.set_next_used(self.next_used);
    }
}
