// SPDX-License-Identifier: Apache-2.0
//! The file of a template or a snapshot: what it was made for, the machine's state, and the guest's memory.
//!
//! ```text
//!   0        100             page-aligned           memory_offset (2 MiB aligned)
//!   ┌────────┬───────────────┬─────────┬─── zero ───┬──────────────────────────────┐
//!   │ header │ identity JSON │ state   │            │ guest memory, sparse         │
//!   └────────┴───────────────┴─────────┴────────────┴──────────────────────────────┘
//!   └─────── the head ───────┘ padded  └──────────── the pages ────────────────────┘
//!        digest: all its bytes             digest: each page that is not all zero
//! ```
//!
//! One file, so that there is no state without its memory: who has the descriptor has both. The memory lies where its
//! pages can be mapped, large ones too, and pages of zeros are holes. The head has its digest in it and is checked by
//! [`open`] at each start; the pages have theirs in the head, and [`Envelope::verify_memory`] checks it when there is
//! time for that. A digest of the pages is of what they hold, not of where the file has holes: a copy that has lost them is
//! as good. Between the two digests and the file's length, any byte that is changed, missing or too many is found.
//!
//! The digests find damage, not forgery: who can write the file can write its digests. The caller keeps it in a folder
//! that nobody else writes to, and writes to no envelope once it is sealed.

mod header;
mod identity;
mod open;
mod pages;
mod seal;

#[cfg(test)]
mod tests;

pub use identity::{Identity, Kind, Mismatch};
pub use open::{Envelope, OpenError, open};
pub use seal::{SealError, seal};

use std::fmt;

/// Most bytes of an identity.
pub const MAX_IDENTITY: u32 = 1 << 20;
/// Most bytes of a machine's state.
pub const MAX_STATE: u32 = 16 << 20;
/// What this reads and writes; nothing else.
pub const VERSION: u32 = 1;

const PAGE_LEN: usize = 4096;
const PAGE: u64 = PAGE_LEN as u64;
/// So that the memory can be mapped with large pages.
const MEMORY_ALIGN: u64 = 2 << 20;

/// A SHA-256; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
