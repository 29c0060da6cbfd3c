// SPDX-License-Identifier: Apache-2.0
//! The FUSE servers behind virtio-fs.
//!
//! ```text
//!    request bytes ──► server: decode (opcode, lengths, names) ──► FileSystem: index (images)
//!    Reply         ◄── server: encode, exact lengths           ◄──
//! ```
//!
//! A request is a guest's allegation: it becomes a `request::Request` by being checked once, and what is behind that door
//! sees only names without `/` and numbers it must look up. No name ever reaches the host kernel's path lookup: the
//! index is a table in memory, and contents are read by offset from files that were open before the guest ran.
#![forbid(unsafe_code)]

pub mod abi;
pub mod counters;
pub mod filesystem;
pub mod index;
pub mod reply;
pub mod request;
pub mod server;

pub use counters::{Counters, Snapshot};
pub use filesystem::{FileSystem, Nothing};
pub use index::IndexServer;
pub use reply::Reply;
pub use server::{MAX_REQUEST, Server};
