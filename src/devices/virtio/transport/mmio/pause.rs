// SPDX-License-Identifier: Apache-2.0
//! A transport that stands still, to be written down and to go on, here or in another process.
//!
//! ```text
//!               pause                        save
//!         ┌───────────────► Paused(queues) ────────► TransportState
//!       Free                   │      ▲                   │
//!         ▲      resume        │      │      restore      │
//!         └────────────────────┘      └───────────────────┘
//!                                       into a fresh one
//! ```
//!
//! Free, the device runs if the driver has it run. Paused, it does not, and the queues it is to go on with are here;
//! none if there is no driver or if it waits for a reset, and then `resume` starts nothing. Registers answer as ever:
//! a driver that came to DRIVER_OK meanwhile (none does, with its vCPUs stopped) has its device started at `resume`. Kicks are not lost, for
//! the eventfds stay the same and keep count; and a worker looks into every queue when it starts.

use super::MmioTransport;
use crate::virtio::interrupt::{CONFIG_CHANGE, USED_BUFFER};
use crate::virtio::status::Status;
use crate::virtio::transport::TransportState;
use crate::virtio::transport::registers::Registers;
use crate::virtio::transport::state::Position;
use crate::virtio::{BoundQueue, RestoreError, SaveError, StartError};
use std::mem;

/// Who has the queues of a device that its driver has running.
#[derive(Debug)]
pub(super) enum Hold {
    /// The device.
    Free,
    /// Nobody works on them.
    Paused(Vec<BoundQueue>),
}

impl Hold {
    /// Keeps queues for later, or gives them back to be worked on.
    pub(super) fn keep(&mut self, queues: Vec<BoundQueue>) -> Option<Vec<BoundQueue>> {
        match self {
            Self::Free => Some(queues),
            Self::Paused(kept) => {
                *kept = queues;
                None
            }
        }
    }

    /// There are no queues any more.
    pub(super) fn forget(&mut self) {
        if let Self::Paused(kept) = self {
            kept.clear();
        }
    }
}

impl MmioTransport {
    /// Stops the device where it is: when this returns, nothing touches the guest's memory. Once more is harmless.
    pub fn pause(&mut self) {
        if matches!(self.hold, Hold::Paused(_)) {
            return;
        }
        let mut queues = self.device.stop();
        // A device that waits for a reset is deaf until it comes, and gets new queues then.
        if self.interrupt.is_reset_needed() {
            queues.clear();
        }
        self.hold = Hold::Paused(queues);
    }

    /// Has the device go on where it was, if it ran. Harmless for a transport that is not paused. A device that cannot
    /// go on has lost what it knew, and asks its driver for a reset.
    pub fn resume(&mut self) -> Result<(), StartError> {
        let Hold::Paused(queues) = mem::replace(&mut self.hold, Hold::Free) else {
            return Ok(());
        };
        self.interrupt.repeat();
        if queues.is_empty() {
            return Ok(());
        }
        self.run(queues).inspect_err(|_| self.interrupt.needs_reset())
    }

    /// Everything about the device, while it is paused. It can go on afterwards, whether this succeeds or not.
    pub fn save(&self) -> Result<TransportState, SaveError> {
        let Hold::Paused(queues) = &self.hold else {
            return Err(SaveError::NotPaused);
        };
        Ok(TransportState {
            kind: self.device.kind(),
            registers: self.registers.clone(),
            positions: queues.iter().map(|bound| Position::of(&bound.queue)).collect(),
            interrupt: self.interrupt.save(),
            device: self.device.save()?,
        })
    }

    /// Puts a transport that no driver has touched where another was; it is paused then. What is refused changes nothing.
    pub fn restore(&mut self, state: &TransportState) -> Result<(), RestoreError> {
        if self.registers.status != Status::default() {
            return Err(RestoreError::NotFresh);
        }
        let queues = self.check(state)?;
        self.device.restore(&state.device)?;
        self.interrupt.restore(state.interrupt);
        self.registers = state.registers.clone();
        self.hold = Hold::Paused(queues);
        Ok(())
    }

    /// Judges all of a state but the device's own, and gives the queues it is to go on with.
    fn check(&self, state: &TransportState) -> Result<Vec<BoundQueue>, RestoreError> {
        let TransportState { kind, registers, positions, interrupt, device: _ } = state;
        let expected = self.device.kind();
        if *kind != expected {
            return Err(RestoreError::Kind { found: *kind, expected });
        }
        registers.check(&Registers::new(self.device.queue_sizes()), self.offered(), &self.memory)?;
        if interrupt.status & !(USED_BUFFER | CONFIG_CHANGE) != 0 {
            return Err(RestoreError::Field { field: "interrupt.status", why: "a bit there is not" });
        }
        if interrupt.needs_reset && !registers.status.was_started() {
            let why = "a device that was never started";
            return Err(RestoreError::Field { field: "interrupt.needs_reset", why });
        }
        let runs = registers.status.runs() && !interrupt.needs_reset;
        if positions.len() != if runs { registers.queues.len() } else { 0 } {
            let why = "not one for each queue of a device that runs, and none of another";
            return Err(RestoreError::Field { field: "positions", why });
        }
        let mut queues = if runs { self.bind(registers)? } else { Vec::new() };
        for (bound, position) in queues.iter_mut().zip(positions) {
            position.apply(&mut bound.queue);
        }
        Ok(queues)
    }
}

#[cfg(test)]
mod tests;
