// SPDX-License-Identifier: Apache-2.0
//! The system-call filter of a container, worked out on the host so that the guest only loads it.
//!
//! ```text
//!   default + capabilities ──┐
//!                            ├──► profile::Profile ──► compile ──► classic BPF, sent to the agent
//!   a profile file (json) ───┘
//! ```

mod compile;
mod default;
mod json;
mod profile;
mod table;

pub use compile::compile;
pub use default::default_profile;
pub use json::{ProfileError, parse};
pub use profile::{Action, Profile};

/// A system call's name.
pub(crate) fn name_of(number: i64) -> &'static str {
    table::NAMES.iter().find(|(_, known)| i64::from(*known) == number).map_or("unknown", |(name, _)| name)
}

#[cfg(test)]
mod tests;
