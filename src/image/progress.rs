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

/// All of it may be ignored: `()` does. Layers come several at once.
pub trait Progress: Sync {
    fn layer_started(&self, layer: &LayerProgress) {
        let _ = layer;
    }
    /// Another load is at it already.
    fn layer_waits(&self, layer: &LayerProgress) {
        let _ = layer;
    }
    /// So many compressed bytes more.
    fn layer_advanced(&self, layer: &LayerProgress, bytes: u64) {
        let _ = (layer, bytes);
    }
    /// What came was not what it should be, or did not come: from the front.
    fn layer_again(&self, layer: &LayerProgress) {
        let _ = layer;
    }
    /// `present`: it was in the store already.
    fn layer_done(&self, layer: &LayerProgress, present: bool) {
        let _ = (layer, present);
    }
}

impl Progress for () {}
