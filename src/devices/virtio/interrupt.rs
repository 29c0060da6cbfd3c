// SPDX-License-Identifier: Apache-2.0
//! How a device gets the driver's attention (§4.2.3.3): a bit that says why, and an eventfd behind which KVM holds the line.
//!
//! The transport and the worker share it: the worker sets bits, the driver reads and clears them through the transport.
//! The line is edge-triggered, so the bit is always set before the eventfd is written: a driver that clears
//! the older of two bits still gets the second edge, and looks at the rings after it acknowledged.

use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// Bits of the InterruptStatus register (§4.2.2).
pub const USED_BUFFER: u32 = 1;
pub const CONFIG_CHANGE: u32 = 2;

#[derive(Debug, Clone)]
pub struct Interrupt(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    status: AtomicU32,
    generation: AtomicU32,
    needs_reset: AtomicBool,
    line: EventFd,
}

/// What of it a driver can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InterruptState {
    pub(crate) status: u32,
    pub(crate) generation: u32,
    pub(crate) needs_reset: bool,
}

impl Interrupt {
    pub fn new(line: EventFd) -> Self {
        Self(Arc::new(Shared {
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            line,
        }))
    }

    /// A buffer was put into a used ring. Ask the queue first whether the driver wants to know.
    pub fn used_buffer(&self) {
        self.raise(USED_BUFFER);
    }

    /// The configuration space has changed.
    pub fn config_changed(&self) {
        self.0.generation.fetch_add(1, Ordering::SeqCst);
        self.raise(CONFIG_CHANGE);
    }

    /// The device cannot go on until the driver resets it (§2.1.2); it says so in the status register.
    pub fn needs_reset(&self) {
        self.0.needs_reset.store(true, Ordering::SeqCst);
        self.raise(CONFIG_CHANGE);
    }

    pub(crate) fn is_reset_needed(&self) -> bool {
        self.0.needs_reset.load(Ordering::SeqCst)
    }

    pub(crate) fn status(&self) -> u32 {
        self.0.status.load(Ordering::SeqCst)
    }

    pub(crate) fn acknowledge(&self, bits: u32) {
        self.0.status.fetch_and(!bits, Ordering::SeqCst);
    }

    pub(crate) fn generation(&self) -> u32 {
        self.0.generation.load(Ordering::SeqCst)
    }

    /// The device was reset: nothing is pending any more. No worker may be running.
    pub(crate) fn clear(&self) {
        self.0.status.store(0, Ordering::SeqCst);
        self.0.needs_reset.store(false, Ordering::SeqCst);
    }

    pub(crate) fn save(&self) -> InterruptState {
        InterruptState {
            status: self.status(),
            generation: self.generation(),
            needs_reset: self.is_reset_needed(),
        }
    }

    /// No worker may be running. The line stays as it is.
    pub(crate) fn restore(&self, state: InterruptState) {
        self.0.status.store(state.status, Ordering::SeqCst);
        self.0.generation.store(state.generation, Ordering::SeqCst);
        self.0.needs_reset.store(state.needs_reset, Ordering::SeqCst);
    }

    /// Raises the line again if the driver has not acknowledged: KVM passes an edge on in its own time, so one may be lost
    /// when a machine is saved. One too many costs the driver a look at the rings.
    pub(crate) fn repeat(&self) {
        if self.status() != 0 {
            self.raise_line();
        }
    }

    fn raise(&self, bit: u32) {
        self.0.status.fetch_or(bit, Ordering::SeqCst);
        self.raise_line();
    }

    fn raise_line(&self) {
        match self.0.line.write(1) {
            Ok(()) => {}
            // The counter is full: the line has been raised four billion times and is not forgotten.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => tracing::debug!(%error, "an interrupt was lost"),
        }
    }
}
