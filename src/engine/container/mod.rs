// SPDX-License-Identifier: Apache-2.0
//! Containers: what one is to be, what is known of it, its life, and one verb a file.

mod beneath;
pub(crate) mod conclude;
pub(crate) mod control;
pub(crate) mod inspect;
pub(crate) mod launch;
pub mod list;
pub mod name;
pub mod pause;
pub(crate) mod prepare;
pub(crate) mod process;
pub(crate) mod records;
pub mod remove;
pub mod restore;
pub mod run;
pub mod spec;
pub mod state;
pub mod word;

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
