// SPDX-License-Identifier: Apache-2.0
//! How a driver reaches a device: its registers, and what they set in motion.

pub mod mmio;
mod queue;
mod registers;
mod state;

pub use mmio::MmioTransport;
pub use queue::QueueField;
pub use state::TransportState;
