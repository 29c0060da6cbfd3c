// SPDX-License-Identifier: Apache-2.0
//! A tree as the writer of tables sees it.

use super::{BuildError, Tree};
use crate::emit::Source;
use crate::format::{Record, Use, at, from_place, halves};
use crate::links::{Links, Names};
use crate::read::Extent;

impl Names for Tree {
    fn name(&self, reference: u32) -> &[u8] {
        self.names.name(reference)
    }
}

impl Source for Tree {
    fn used(&self) -> Use {
        self.used
    }

    fn layers(&self) -> usize {
        1
    }

    fn root(&self) -> u32 {
        Self::ROOT.0
    }

    fn nodes(&self) -> usize {
        self.records.len()
    }

    fn links(&self) -> &Links {
        &self.links
    }

    fn record(&self, node: u32) -> Result<Record, BuildError> {
        self.record_of(node).ok_or(BuildError::Corrupt("a node"))
    }

    fn blob(&self, node: u32) -> Result<&[u8], BuildError> {
        Ok(self.blob_of(&self.record(node)?))
    }

    fn extents(&self, node: u32) -> Result<Vec<Extent>, BuildError> {
        let (first, count) = halves(self.record(node)?.payload);
        let all = self.extents.get(at(first)..).and_then(|rest| rest.get(..at(count)));
        let all = all.ok_or(BuildError::Corrupt("extents"))?.iter();
        Ok(all
            .map(|&(file_offset, len, place)| {
                let (layer, data_offset) = from_place(place);
                Extent { file_offset, len, layer, data_offset }
            })
            .collect())
    }

    fn extent_count(&self, node: u32) -> Result<u32, BuildError> {
        Ok(halves(self.record(node)?.payload).1)
    }

    fn xattrs(&self, node: u32) -> Result<Option<(u64, &[u8])>, BuildError> {
        Ok(self.xattrs.get(&node).map(|&(offset, len)| (u64::from(offset), self.sets.get(offset, len))))
    }
}
