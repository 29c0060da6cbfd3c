// SPDX-License-Identifier: Apache-2.0
//! What a load tells those who wait for it.

use crate::digest::Digest;

/// One layer of an image being loaded.
#[derive(Debug, Clone, Copy)]
pub struct LayerProgress {
    /// From 1.
    pub number: usize,
    pub of: usize,
    pub diff_id: Digest,
    /// Compressed bytes to come, if known.
    pub size: Option<u64>,
}

/// All of it may be ignored: `()` does.
pub trait Progress {
    fn layer_started(&mut self, layer: &LayerProgress) {
        let _ = layer;
    }
    /// So many compressed bytes more.
    fn layer_advanced(&mut self, bytes: u64) {
        let _ = bytes;
    }
    /// `present`: it was in the store already.
    fn layer_done(&mut self, layer: &LayerProgress, present: bool) {
        let _ = (layer, present);
    }
}

impl Progress for () {}
