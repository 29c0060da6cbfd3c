// SPDX-License-Identifier: Apache-2.0
//! How much an image may ask for. The defaults keep each process of an import below 128 MiB of
//! memory whatever the image.

use serde::{Deserialize, Serialize};
use std::env;

/// Largest manifest, index or configuration.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;
/// Largest extended header of a tar entry.
pub(crate) const HEADER_MAX: u64 = 1 << 20;
/// Most pieces of one sparse file.
pub(crate) const PIECES_MAX: usize = 1 << 18;
/// Most zeros after an archive's end: padding to a tape's block, generously.
pub(crate) const TRAILER_MAX: u64 = 1 << 20;
/// Largest window of a zstd stream, as a power of two: what the encoders in use ask for at their strongest.
pub(crate) const ZSTD_WINDOW_LOG: u32 = 25;
/// Most members of an image archive (not of a layer).
pub(crate) const MEMBERS_MAX: usize = 10_000;
/// Small files that live in a layer's index, together: beyond this they go to the data file.
pub(crate) const INLINE_SUM_MAX: u64 = 8 << 20;
/// Data written before its ratio to the compressed bytes is looked at.
pub(crate) const RATIO_FROM: u64 = 256 << 20;
/// Most bytes of data (holes not counted) for one compressed byte.
pub(crate) const RATIO_MAX: u64 = 200;

/// Limits a user may raise.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Limits {
    /// Most bytes a layer or an archive may decompress to (`ISOPOD_MAX_LAYER_BYTES`).
    pub layer_bytes: u64,
    /// Most memory for the names and attributes of one layer (`ISOPOD_MAX_LAYER_METADATA`).
    pub layer_metadata: usize,
    /// Most memory for putting the layers of one image together (`ISOPOD_MAX_IMAGE_METADATA`).
    pub image_metadata: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer_bytes: 16 << 30, layer_metadata: 72 << 20, image_metadata: 112 << 20 }
    }
}

impl Limits {
    /// The defaults, or what the environment says instead.
    pub fn from_env() -> Self {
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let default = Self::default();
        Self {
            layer_bytes: number("ISOPOD_MAX_LAYER_BYTES").unwrap_or(default.layer_bytes),
            layer_metadata: number("ISOPOD_MAX_LAYER_METADATA")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(default.layer_metadata),
            image_metadata: number("ISOPOD_MAX_IMAGE_METADATA").unwrap_or(default.image_metadata),
        }
    }
}
