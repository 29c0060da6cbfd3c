// SPDX-License-Identifier: Apache-2.0
//! What host and guest agent say to each other: versions, frames and messages; no I/O.
//!
//! One stream carries everything (the agent opens it to the host, once, before any user code runs), so a guest
//! needs no listener and a host has exactly one thing to watch. On it travel *frames*: a message, a piece of a
//! byte stream, its end, or room for more of it. Streams are windowed (`window`), so that a reader who stalls
//! stalls his stream alone and neither side ever holds more than a window of it.
//!
//! Each side takes the other's bytes as an allegation: `frame::Decoder` checks lengths before it keeps anything.
#![forbid(unsafe_code)]

pub mod frame;
pub mod message;
pub mod window;

pub use frame::{Decoder, Frame, FrameError, StreamId};
pub use message::{FromAgent, FromHost};

/// Spoken by this build. 1: the first. 2: Freeze and Thaw, and a mailbox.
pub const VERSION: u32 = 2;

/// The vsock port on the host (CID 2) to which the agent connects; every other port is refused.
pub const AGENT_PORT: u32 = 1024;
