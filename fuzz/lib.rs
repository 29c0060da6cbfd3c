// SPDX-License-Identifier: Apache-2.0
//! What is fuzzed: one body for each parser of what a guest, an image or an agent says.
//!
//! ```text
//!   bytes ──► arbitrary: a script that is valid unless it says otherwise ──► the real thing ──► what must hold
//! ```
//!
//! A body takes any bytes, and panics if what must hold does not. Most bytes mean something that is *valid*: a ring that
//! is set up, a packet with its payload, a table that was built; so that the fuzzer's time goes into what lies
//! behind the first check, and its luck into the one thing that is wrong.
//!
//! The bodies know nothing of the fuzzer: `tests/corpus.rs` replays what is in `corpus/` with plain tests.

mod challenges;
mod devices;
mod documents;
mod envelope;
mod frames;
mod fuse;
mod index;
mod layers;
mod machine;
mod references;
mod vsock;

use std::env;
use std::sync::OnceLock;

pub type Body = fn(&[u8]);

/// All targets; each has its folder in `corpus/`.
pub const TARGETS: &[(&str, Body)] = &[
    ("challenges", challenges::headers),
    ("documents", documents::images),
    ("envelope", envelope::files),
    ("frames-from-agent", frames::from_agent),
    ("frames-from-host", frames::from_host),
    ("fuse", fuse::requests),
    ("index", index::tables),
    ("layers", layers::layers),
    ("references", references::names),
    ("device-fs", devices::fs),
    ("device-rng", devices::rng),
    ("device-vsock", devices::vsock),
    ("vsock", vsock::packets),
];

/// Says which target the fuzzer's binary runs.
pub const TARGET_VARIABLE: &str = "ISOPOD_FUZZ_TARGET";

pub fn find(name: &str) -> Option<Body> {
    TARGETS.iter().find(|(have, _)| *have == name).map(|(_, body)| *body)
}

/// The body the environment asks for.
pub fn chosen() -> Body {
    static CHOSEN: OnceLock<Body> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = env::var(TARGET_VARIABLE).unwrap_or_default();
        find(&name).unwrap_or_else(|| panic!("{TARGET_VARIABLE}={name:?} names no target"))
    })
}
