// SPDX-License-Identifier: Apache-2.0
//! Virtio devices (version 1.3 of the specification, whose sections are cited as §), as this machine has them.
//!
//! What a device owes is small: who it is, what its configuration space says, and what to do between `start` and
//! `stop`. Registers, features and the status machine are the transport's; the loop over the queues is the worker's.
//!
//! ```text
//!               DRIVER_OK, resume: start(Bound) ────────► worker owns queues, memory, interrupt
//!    idle ◄─────────────────────────────────── stop() ───── and gives all of it back
//!     │ ▲       pause, reset, FAILED, or the machine's end
//!     │ └─ restore(state), of a device that was never started
//!     ├─── save(): what it remembers between a stop and the next start
//!     └─── reset(), after the stop of a reset or of FAILED: it forgets that
//! ```

#[cfg(test)]
mod attacks;
pub mod chain;
#[cfg(any(test, feature = "test-utils"))]
pub mod conformance;
pub mod features;
pub mod fs;
pub mod interrupt;
pub mod rng;
pub mod state;
pub mod status;
pub mod transport;
pub mod vsock;
pub mod worker;

pub use interrupt::Interrupt;
pub use state::{DeviceState, RestoreError, SaveError};
pub use transport::{MmioTransport, TransportState};

use isopod_sys::confined::Closing;
use isopod_sys::seccomp::Rule;
use std::fmt::Debug;
use std::io;
use thiserror::Error;
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

/// The guest's memory, as every device sees it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// A queue the driver made ready and the transport found valid, and the eventfd that says it has something in it.
#[derive(Debug)]
pub struct BoundQueue {
    pub queue: Queue,
    pub kick: EventFd,
}

/// What a device needs to run, moved in at start and given back by stop.
#[derive(Debug)]
pub struct Bound {
    pub memory: GuestMemory,
    /// What was negotiated, the transport's own bits included.
    pub features: u64,
    /// One for each of `queue_sizes`, in that order, all ready.
    pub queues: Vec<BoundQueue>,
    pub interrupt: Interrupt,
}

#[derive(Debug, Error)]
pub enum StartError {
    #[error("cannot make what the worker of `{device}` waits on (op={op})")]
    Wait { device: &'static str, op: &'static str, source: io::Error },
    #[error("cannot start the worker thread of `{device}`")]
    Thread { device: &'static str, source: io::Error },
    #[error("the device `{device}` is already running, or lost its state in a failed start")]
    NotIdle { device: &'static str },
}

/// The system calls that are left to each device's thread.
pub fn calls() -> [(&'static str, Vec<Rule>); 3] {
    [
        (fs::THREAD, worker::rules::<fs::Session>()),
        (vsock::THREAD, worker::rules::<vsock::Service>()),
        (rng::THREAD, worker::rules::<rng::Source>()),
    ]
}

pub trait VirtioDevice: Send + Debug {
    /// The device's number in §5.
    fn kind(&self) -> u32;

    /// The most entries each queue can have; powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// The feature bits of this kind of device. `VERSION_1` and the ring's features are the transport's to offer.
    fn features(&self) -> u64;

    /// Fills `data` from the configuration space at `offset`; what lies beyond its end stays zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Makes the thread that will serve the queues, before the guest runs; `confined`, it has no system calls but those it
    /// needs, once it has said so. None if it is there already.
    fn man(&mut self, confined: bool) -> Result<Option<Closing>, StartError>;

    /// Takes the queues and serves them, on a thread of its own.
    fn start(&mut self, bound: Bound) -> Result<(), StartError>;

    /// Ends what `start` began and gives the queues back; reset, pause and unplug are all of them `stop`. What was agreed
    /// with the driver stays, for it may go on.
    fn stop(&mut self) -> Vec<BoundQueue>;

    /// The driver is gone: forgets what belongs to its time. Comes after `stop`.
    fn reset(&mut self);

    /// What it remembers between a stop and the next start. Changes nothing, and may be asked again.
    fn save(&self) -> Result<DeviceState, SaveError>;

    /// Remembers what another of its kind did; for a device that was never started. What is refused changes nothing.
    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError>;
}
