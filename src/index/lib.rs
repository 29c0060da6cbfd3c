// SPDX-License-Identifier: Apache-2.0
//! The file index of an image: build, merge, verify, look up.
//!
//! An index is one immutable table of everything a file system knows about its files except their contents. It is
//! written once, mapped, and read in place: a look-up allocates nothing and copies nothing but a name's answer.
//!
//! ```text
//!   tar entries ──► build::Tree ──► index of a layer ──┐
//!                                   index of a layer ──┼──► merge::merge ──► index of an image ──► read::Index
//!                                   index of a layer ──┘
//! ```
//!
//! There is no I/O here but `io::Write`: whoever calls decides where bytes live, and whose digest vouches for them.
#![forbid(unsafe_code)]

pub mod build;
mod emit;
pub mod format;
mod keep;
mod links;
pub mod merge;
pub mod read;
mod verify;

pub use build::{Attributes, Body, BuildError, Tree};
pub use merge::{MergeError, merge};
pub use read::{
    Content, Counts, Device, Entries, Entry, Extent, Extents, Index, Ino, Inode, OpenError, Time, Xattrs,
};
pub use verify::Corrupt;
