// SPDX-License-Identifier: Apache-2.0
//! What there are many of: a folder's entries, a file's pieces, an inode's attributes.

use super::{Entry, Extent, View};
use crate::format::{EXTENT_LEN, at, decode_extent, from_place};
use std::iter::FusedIterator;

/// A folder's entries.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    pub(super) view: View<'a>,
    pub(super) next: u32,
    pub(super) end: u32,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if self.next >= self.end {
            return None;
        }
        let entry = self.view.dirent(self.next);
        self.next = if entry.is_some() { self.next + 1 } else { self.end };
        entry
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = at(self.end.saturating_sub(self.next));
        (0, Some(left))
    }
}

impl FusedIterator for Entries<'_> {}

/// The pieces of a file that are not holes.
#[derive(Debug, Clone, Copy)]
pub struct Extents<'a> {
    pub(super) size: u64,
    pub(super) pieces: Pieces<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Pieces<'a> {
    /// The whole file at one place.
    One(u64),
    Table(&'a [u8]),
}

impl<'a> Extents<'a> {
    pub fn len(&self) -> usize {
        match self.pieces {
            Pieces::One(_) => 1,
            Pieces::Table(table) => table.len() / EXTENT_LEN,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, n: usize) -> Option<Extent> {
        let (file_offset, len, place) = match self.pieces {
            Pieces::One(place) if n == 0 => (0, self.size, place),
            Pieces::One(_) => return None,
            Pieces::Table(table) => decode_extent(table.get(n.checked_mul(EXTENT_LEN)?..)?.first_chunk()?),
        };
        let (layer, data_offset) = from_place(place);
        Some(Extent { file_offset, len, layer, data_offset })
    }

    /// The pieces that end after `offset`, in order: where a read at `offset` begins. By binary search.
    pub fn from(self, offset: u64) -> impl Iterator<Item = Extent> + use<'a> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let ends_after = self.get(middle).is_some_and(|e| e.file_offset.saturating_add(e.len) > offset);
            if ends_after {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        (low..self.len()).map_while(move |n| self.get(n))
    }

    pub fn iter(&self) -> impl Iterator<Item = Extent> + use<'a> {
        self.from(0)
    }
}

/// An inode's extended attributes: `(name, value)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Xattrs<'a> {
    pub(super) left: u16,
    pub(super) rest: &'a [u8],
}

impl<'a> Xattrs<'a> {
    pub(super) fn parse(set: &'a [u8]) -> Option<Self> {
        let (count, rest) = set.split_first_chunk()?;
        Some(Self { left: u16::from_le_bytes(*count), rest })
    }

    fn take(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (name_len, rest) = self.rest.split_first_chunk()?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*name_len)))?;
        let (value, rest) = rest.split_at_checked(at(u32::from_le_bytes(*value_len)))?;
        self.rest = rest;
        Some((name, value))
    }
}

impl<'a> Iterator for Xattrs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let item = self.take();
        if item.is_none() {
            self.left = 0;
        }
        item
    }
}
