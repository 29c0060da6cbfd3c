// SPDX-License-Identifier: Apache-2.0
//! What a device remembers while it does not run, as plain values, and why such a state may not be had or taken.
//!
//! A state comes from a file that nobody is thought to have changed. It is still judged like anything from outside: each
//! field is checked before any of it counts, and what is refused is named and has changed nothing.

use super::transport::QueueField;
use super::vsock::VsockState;
use serde::{Deserialize, Serialize};
use std::io;
use thiserror::Error;

/// A device's own state, beside its registers and its place in the rings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceState {
    Fs {
        /// The FUSE flags agreed on, once INIT was.
        session: Option<u32>,
    },
    Vsock(VsockState),
    Rng,
}

/// Why there is no state to be had. After `BytesHeld` and `RefusalsQueued` there may be, once the device ran on for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SaveError {
    #[error("the device is not paused")]
    NotPaused,
    #[error("the device runs, or lost its state in a failed start")]
    NotIdle,
    #[error("{bytes} bytes of the guest's are held for a socket that does not take them")]
    BytesHeld { bytes: usize },
    #[error("{count} refusals are queued for buffers the guest has not posted")]
    RefusalsQueued { count: usize },
}

#[derive(Debug, Error)]
pub enum RestoreError {
    #[error("the device was used before")]
    NotFresh,
    #[error("kind: of a device of kind {found}, where this one is of kind {expected}")]
    Kind { found: u32, expected: u32 },
    #[error("{field}: {why}")]
    Field { field: &'static str, why: &'static str },
    #[error(transparent)]
    Bind(#[from] BindError),
}

impl RestoreError {
    pub(crate) const OTHER_DEVICE: Self = Self::Field { field: "device", why: "of another kind of device" };
}

/// Why a queue's registers do not become a queue.
#[derive(Debug, Error)]
pub enum BindError {
    #[error("queues[{queue}].{field}: not one a queue here can have")]
    Queue { queue: usize, field: QueueField },
    #[error("cannot share the kick of queue {queue} (op=dup)")]
    Kick { queue: usize, source: io::Error },
}
