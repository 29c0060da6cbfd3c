// SPDX-License-Identifier: Apache-2.0
//! What the engine and a machine's process say to each other: JSON, one message a packet.
//!
//! ```text
//!   engine                               machine
//!     │── which jail, its group's files ───►│   once, first (`isopod_jail`); the rest comes when it is closed
//!     │── MachineConfig + descriptors ─────►│   once; order of the descriptors: `Descriptors`
//!     │── the mailbox's bytes ─────────────►│   once, if the machine is restored
//!     │◄────────────────────────── Running ─│   the first vCPU is about to enter the guest
//!     │── Request ─────────────────────────►│   any number, one after the other
//!     │◄───────────── its answer, or Refused│
//!     │◄──────────────────────────── Ended ─│   once, last; the process then exits
//! ```

use crate::boot::symbols;
use isopod_jail::Layer;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;

/// Most bytes of one message.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most bytes of a `Request`.
pub(crate) const MAX_REQUEST: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Counters,
    /// Stand still; with the address of the agent's mailbox, once it waits there.
    Pause {
        mailbox: Option<u64>,
    },
    /// Write all there is to know into the first descriptor, under the identity that is in the second, as JSON.
    Save,
    /// Write which pages were touched so far into the first descriptor; the second is the process's own pagemap.
    Touched,
    /// Go on; with a mailbox, after what the next packet has was put into it.
    Resume {
        mailbox: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Running(Marks),
    Counters(Counters),
    Paused,
    Saved,
    Touched,
    Resumed,
    /// What was asked for was not done, and why. The machine is as before.
    Refused {
        message: String,
    },
    Ended(End),
}

/// When what was done, in ns of CLOCK_MONOTONIC, so that marks of two processes compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// `main` of the machine's process was reached.
    pub process: u64,
    /// It was in its jail, but for the filters.
    pub jailed: u64,
    /// The config and the descriptors had arrived.
    pub config: u64,
    /// Memory, vCPUs, irqchip and devices were there.
    pub assembled: u64,
    /// The first KVM_RUN was next.
    pub first_run: u64,
}

/// What KVM counted, over all vCPUs, since the machine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Guest-kernel instructions that KVM emulated; about 0 on hardware.
    pub emulated_instructions: u64,
    /// Interrupts injected, ticks for the most part.
    pub interrupts: u64,
    pub exits: u64,
    /// Requests that the image's file server answered.
    pub image_requests: u64,
}

/// Why a machine is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The guest powered itself off.
    PoweredOff,
    /// The guest asked for a reset.
    Rebooted,
    /// The guest's kernel panicked.
    Panicked,
    /// A fault while handling a fault while handling a fault.
    TripleFault { rip: u64, symbol: Option<String> },
    /// KVM could not go on with the guest.
    InternalError { suberror: u32, rip: u64, bytes: Vec<u8>, symbol: Option<String> },
    /// It never began: a layer of its jail cannot be had.
    Unjailed { layer: Layer, message: String },
    /// Our own side failed: what and why.
    Failed { message: String },
}

impl End {
    /// With the names that the symbol table of `kernel` has for its addresses.
    pub(crate) fn with_symbols(self, kernel: &File) -> Self {
        match self {
            Self::TripleFault { rip, .. } => Self::TripleFault { rip, symbol: symbols::name(kernel, rip) },
            Self::InternalError { suberror, rip, bytes, .. } => {
                Self::InternalError { suberror, rip, bytes, symbol: symbols::name(kernel, rip) }
            }
            other => other,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => write!(f, "the guest powered itself off"),
            Self::Rebooted => write!(f, "the guest reset itself"),
            Self::Panicked => write!(f, "the guest's kernel panicked"),
            Self::TripleFault { rip, symbol } => {
                write!(f, "the guest triple-faulted at {rip:#x}{}", named(symbol.as_deref()))
            }
            Self::InternalError { suberror, rip, bytes, symbol } => {
                write!(f, "KVM cannot go on (suberror {suberror}) at {rip:#x}{}", named(symbol.as_deref()))?;
                write!(f, ", instruction bytes")?;
                bytes.iter().try_for_each(|b| write!(f, " {b:02x}"))
            }
            Self::Unjailed { layer, message } => {
                write!(f, "the jail's layer `{layer}` cannot be had ({}): {message}", layer.what())
            }
            Self::Failed { message } => write!(f, "{message}"),
        }
    }
}

fn named(symbol: Option<&str>) -> String {
    symbol.map(|s| format!(" ({s})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_error_names_address_bytes_and_symbol() {
        let end = End::InternalError {
            suberror: 1,
            rip: 0xffff_ffff_8100_0000,
            bytes: vec![0x0f, 0x0b],
            symbol: Some("do_thing+0x4".into()),
        };
        assert_eq!(
            end.to_string(),
            "KVM cannot go on (suberror 1) at 0xffffffff81000000 (do_thing+0x4), instruction bytes 0f 0b"
        );
    }
}
