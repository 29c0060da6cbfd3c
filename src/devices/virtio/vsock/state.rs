// SPDX-License-Identifier: Apache-2.0
//! What of the socket device outlives its process: the connection's books. The unix socket does not, and bytes that are
//! on their way to it would be lost; so there is no state while any are held. A refusal that waits for a buffer is an
//! answer the guest was not given yet, and in the way too. Both go by themselves when the device runs on.
//!
//! The host's end owes as much: what it wrote and the device has not read is in the old socket, not in here.

use super::connection::Connection;
use super::muxer::Muxer;
use crate::virtio::{RestoreError, SaveError};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockState {
    /// The guest's port of the connection, once there is or was one.
    pub(super) guest_port: Option<u32>,
    pub(super) connection: Connection,
}

impl Muxer {
    pub(super) fn save(&self) -> Result<VsockState, SaveError> {
        match (self.bridge.held(), self.refusals()) {
            (0, 0) => {}
            (0, count) => return Err(SaveError::RefusalsQueued { count }),
            (bytes, _) => return Err(SaveError::BytesHeld { bytes }),
        }
        Ok(VsockState { guest_port: self.guest_port, connection: *self.bridge.connection() })
    }

    /// The connection goes on over the socket that is here, which no connection has used.
    pub(super) fn restore(&mut self, state: &VsockState) -> Result<(), RestoreError> {
        if !self.bridge.is_idle() || self.refusals() > 0 {
            return Err(RestoreError::NotFresh);
        }
        state.connection.check()?;
        if state.guest_port.is_none() != state.connection.is_idle() {
            let why = "there is one exactly if there is or was a connection";
            return Err(RestoreError::Field { field: "device.guest_port", why });
        }
        self.guest_port = state.guest_port;
        self.bridge.go_on(state.connection);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
