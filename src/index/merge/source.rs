// SPDX-License-Identifier: Apache-2.0
//! Merged layers as the writer of tables sees them.

use super::Merged;
use crate::build::BuildError;
use crate::emit::Source;
use crate::format::{Record, Use, at, from_place, halves, layout, marks, place};
use crate::links::{Links, NOTHING, Names};
use crate::read::{Content, Extent};

impl Names for Merged<'_> {
    fn name(&self, reference: u32) -> &[u8] {
        self.names.name(reference)
    }
}

impl Source for Merged<'_> {
    fn used(&self) -> Use {
        Use::Image
    }

    fn layers(&self) -> usize {
        self.views.len()
    }

    fn root(&self) -> u32 {
        self.root
    }

    fn nodes(&self) -> usize {
        self.looks.len()
    }

    fn links(&self) -> &Links {
        &self.links
    }

    fn record(&self, node: u32) -> Result<Record, BuildError> {
        let looks = *self.looks.get(at(node)).ok_or(BuildError::Corrupt("a node"))?;
        if looks == NOTHING {
            return Ok(Record::IMPLICIT);
        }
        let (layer, ino) = self.locate(looks).ok_or(BuildError::Corrupt("a node"))?;
        let (mut record, ..) = self.views[layer].record(ino).ok_or(BuildError::Corrupt("a node"))?;
        record.marks &= marks::IMPLICIT;
        if record.layout == layout::ONE {
            let (_, offset) = from_place(record.payload);
            record.payload = place(number(layer), offset);
        }
        Ok(record)
    }

    fn blob(&self, node: u32) -> Result<&[u8], BuildError> {
        let (layer, ino) = self.locate(node).ok_or(BuildError::Corrupt("a node"))?;
        self.views[layer].blob_of(ino).ok_or(BuildError::Corrupt("contents"))
    }

    fn extents(&self, node: u32) -> Result<Vec<Extent>, BuildError> {
        let (layer, ino) = self.locate(node).ok_or(BuildError::Corrupt("a node"))?;
        match self.views[layer].content(ino) {
            Some(Content::Extents(extents)) => {
                Ok(extents.iter().map(|e| Extent { layer: number(layer), ..e }).collect())
            }
            _ => Err(BuildError::Corrupt("contents")),
        }
    }

    fn extent_count(&self, node: u32) -> Result<u32, BuildError> {
        let (layer, ino) = self.locate(node).ok_or(BuildError::Corrupt("a node"))?;
        let (record, ..) = self.views[layer].record(ino).ok_or(BuildError::Corrupt("a node"))?;
        Ok(halves(record.payload).1)
    }

    fn xattrs(&self, node: u32) -> Result<Option<(u64, &[u8])>, BuildError> {
        let looks = *self.looks.get(at(node)).ok_or(BuildError::Corrupt("a node"))?;
        let Some((layer, ino)) = self.locate(looks) else {
            return Ok(None);
        };
        let set = self.views[layer].xattr_bytes(ino);
        Ok(set.map(|(offset, bytes)| ((u64::from(number(layer)) << 32) | u64::from(offset), bytes)))
    }
}

/// A layer's number in a place; there are at most `LAYERS_MAX`.
fn number(layer: usize) -> u16 {
    u16::try_from(layer).unwrap_or(u16::MAX)
}
