// SPDX-License-Identifier: Apache-2.0
//! OCI images: content by digest, layers, archives. Knows nothing of virtual machines.
//!
//! ```text
//!   archive, registry ──► load ──► manifest, config (documents, strictly read)
//!                           └────► intake: whose turn, digest ──► merge ──► store ──► Image: descriptors
//!                                    └─► unpack: compress ► layers: tar ► data file + index    (a process of its own)
//! ```
//! An image is somebody else's word: every byte of it is an allegation until a digest or a check says otherwise, and none
//! of its names is ever a path on this machine.
#![forbid(unsafe_code)]

mod archive;
mod compress;
pub mod config;
mod content;
mod data;
mod digest;
mod error;
mod intake;
mod layers;
mod limits;
mod load;
mod manifest;
mod progress;
mod reference;
mod registry;
mod store;
mod strict;
mod tar;
pub mod tree;
mod turn;
pub mod unpack;

pub use config::ImageConfig;
pub use digest::Digest;
pub use error::{ImageError, Kind, Result};
pub use limits::Limits;
pub use load::Loaded;
pub use progress::{LayerProgress, Progress};
pub use reference::Reference;
#[cfg(feature = "test-utils")]
pub use registry::token_challenge;
pub use registry::{Inspected, Kept, RemoteManifest, Settings, inspect, log_in, log_out, tags};
pub use store::{
    ArchiveForm, Damage, Image, ImageUsage, Inspection, Part, Pruned, Removed, Repair, Step, Store, Stray,
    Summary, Usage, on_disk,
};
