// SPDX-License-Identifier: Apache-2.0
//! Layers are decompressed and taken apart by a process of their own, which can do nothing else: no capability, no
//! network, no file but the two it writes, and of the system calls those it needs for that.
//!
//! ```text
//!   who loads                                 worker
//!     │                                          │   in its jail
//!     │── Order + data file, index file ────────►│   then its filter closes
//!     │── the layer, compressed, in pieces ─────►│   decompress ► digest ► tar ► data, index
//!     │── (shut down: that was all) ────────────►│
//!     │◄─────────────────────────────── Report ──│   and it ends
//! ```
//! One message a packet. What a worker reports is checked like what came from outside: the layer's digest against the
//! configuration, its index by whoever opens it. One that was taken over by its layer can lie about that layer alone: what
//! it has written goes by the digest of the blob, which was taken on this side, and is nobody else's.

mod calls;
mod order;
mod worker;

pub(crate) use order::Unpacking;
pub(crate) use worker::from_build;
pub use worker::main;

/// The system calls that are left to a worker.
pub fn rules() -> &'static [Rule] {
    calls::CALLS
}

use crate::digest::Digest;
use crate::error::{ImageError, Kind};
use crate::limits::Limits;
use isopod_jail::Layers;
use isopod_sys::seccomp::Rule;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::ffi::CStr;
use std::io;

/// What the process is called, and how `main` knows that it is one.
pub const NAME: &CStr = c"isopod-unpack";

/// Most bytes of a packet.
const PIECE: usize = 64 << 10;

/// Who takes layers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Worker {
    /// A thread of this process: for programs that are not isopod.
    #[default]
    Thread,
    /// This program again, under the name above, behind these layers of its jail.
    Process(Layers),
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    limits: Limits,
}

#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Unpacked {
        /// Of what the layer decompresses to.
        diff_id: Digest,
    },
    Refused {
        kind: Kind,
        /// The error, then its causes.
        chain: Vec<String>,
    },
}

/// Most errors of a chain, and most bytes of one: a report is one packet, however much of it JSON has to escape.
const CHAIN_MAX: usize = 8;
const WORDS_MAX: usize = 1 << 10;

impl Report {
    fn refused(error: &ImageError) -> Self {
        let mut chain = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            chain.push(error.to_string());
            cause = error.source();
        }
        for words in &mut chain {
            let end = (0..=WORDS_MAX.min(words.len())).rev().find(|at| words.is_char_boundary(*at));
            words.truncate(end.unwrap_or(0));
        }
        chain.truncate(CHAIN_MAX);
        Self::Refused { kind: error.kind(), chain }
    }

    /// What it means to who asked.
    fn meaning(self) -> Result<Digest, ImageError> {
        match self {
            Self::Unpacked { diff_id } => Ok(diff_id),
            Self::Refused { kind, chain } => {
                let mut words = chain.into_iter().rev();
                let innermost = words.next().unwrap_or_default();
                let first = ImageError::new(kind, innermost);
                Err(words.fold(first, |error, words| error.within(words)))
            }
        }
    }
}

/// A worker that ended before it said what became of its layer.
fn gone(how: &str) -> ImageError {
    ImageError::new(Kind::Io, "the process that takes the layer apart ended early")
        .because(io::Error::other(how.to_owned()))
}

#[cfg(test)]
mod tests;
