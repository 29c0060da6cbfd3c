// SPDX-License-Identifier: Apache-2.0
//! What a driver has written so far: everything about a transport that is neither the device nor its queues' progress.

use super::queue::{Half, Part, QueueField, QueueRegisters};
use crate::virtio::state::{BindError, RestoreError};
use crate::virtio::status::Status;
use crate::virtio::{GuestMemory, features};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registers {
    pub(super) status: Status,
    pub(super) accepted: Accepted,
    pub(super) device_features_sel: u32,
    pub(super) driver_features_sel: u32,
    pub(super) queue_sel: u32,
    pub(super) queues: Vec<QueueRegisters>,
}

/// The features a driver has written.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub(super) bits: u64,
    /// It chose one beyond the 64 there are.
    unknown: bool,
}

impl Registers {
    /// As they are after a reset, with queues of at most these sizes.
    pub(super) fn new(sizes: &[u16]) -> Self {
        Self {
            status: Status::default(),
            accepted: Accepted::default(),
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues: sizes.iter().map(|max| QueueRegisters::new(*max)).collect(),
        }
    }

    pub(super) fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    pub(super) fn accept_features(&mut self, value: u32) {
        if !self.status.takes_features() {
            return;
        }
        let (kept, added) = match self.driver_features_sel {
            0 => (self.accepted.bits & !u64::from(u32::MAX), u64::from(value)),
            1 => (self.accepted.bits & u64::from(u32::MAX), u64::from(value) << 32),
            _ => {
                self.accepted.unknown |= value != 0;
                return;
            }
        };
        self.accepted.bits = kept | added;
    }

    /// Whether the driver may have taken what it did, of what was `offered`.
    pub(super) fn is_acceptable(&self, offered: u64) -> bool {
        !self.accepted.unknown && features::acceptable(offered, self.accepted.bits)
    }

    /// One of the registers of the queue that is selected.
    pub(super) fn write_queue(&mut self, register: QueueRegister, value: u32, memory: &GuestMemory) {
        let Ok(index) = usize::try_from(self.queue_sel) else {
            return;
        };
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        if !self.status.takes_queues() {
            return;
        }
        match register {
            QueueRegister::Size => queue.set_size(value),
            QueueRegister::Ready => queue.set_ready(value, memory),
            QueueRegister::Address(part, half) => queue.set_address(part, half, value),
        }
    }

    /// Whether a driver can have left the registers of such a device like this: one that `offered` these features and
    /// began with `fresh`.
    pub(super) fn check(&self, fresh: &Self, offered: u64, memory: &GuestMemory) -> Result<(), RestoreError> {
        if self.status.is_negotiated() && !self.is_acceptable(offered) {
            let why = "not among what the device offers";
            return Err(RestoreError::Field { field: "accepted", why });
        }
        if self.queues.len() != fresh.queues.len() {
            return Err(RestoreError::Field { field: "queues", why: "not as many as the device has" });
        }
        for (queue, (saved, fresh)) in self.queues.iter().zip(&fresh.queues).enumerate() {
            let refuse = |field| BindError::Queue { queue, field };
            if saved.max() != fresh.max() {
                return Err(refuse(QueueField::Max).into());
            }
            if saved.is_ready() {
                if !self.status.is_negotiated() {
                    return Err(refuse(QueueField::Ready).into());
                }
                saved.build(memory, self.accepted.bits).map_err(refuse)?;
            }
        }
        Ok(())
    }
}

/// A register there is one of for each queue.
#[derive(Debug, Clone, Copy)]
pub(super) enum QueueRegister {
    Size,
    Ready,
    Address(Part, Half),
}
