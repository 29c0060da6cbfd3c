// SPDX-License-Identifier: Apache-2.0
//! Where a tree keeps what has no fixed size: names, and sets of extended attributes.

use crate::build::BuildError;
use crate::format::{NAME_MAX, XATTR_MAX, at};
use crate::links::Names;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

/// Names, each after its length.
#[derive(Debug, Default)]
pub(crate) struct Arena(Vec<u8>);

impl Arena {
    /// Bytes held.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn add(&mut self, name: &[u8]) -> Option<u32> {
        let reference = u32::try_from(self.0.len()).ok()?;
        self.0.push(u8::try_from(name.len()).ok()?);
        self.0.extend_from_slice(name);
        Some(reference)
    }
}

impl Names for Arena {
    fn name(&self, reference: u32) -> &[u8] {
        match self.0.get(at(reference)..).and_then(<[u8]>::split_first) {
            Some((len, rest)) => rest.get(..usize::from(*len)).unwrap_or_default(),
            None => &[],
        }
    }
}

/// Sets of extended attributes, equal ones kept once.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    bytes: Vec<u8>,
    known: HashMap<u64, (u32, u32)>,
    hasher: RandomState,
}

impl Sets {
    /// Bytes held, about.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.len() + self.known.len() * 32
    }

    /// Offset and length of the encoded set; nothing for an empty one.
    pub(crate) fn add(
        &mut self,
        xattrs: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<Option<(u32, u32)>, BuildError> {
        if xattrs.is_empty() {
            return Ok(None);
        }
        let sum: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let good = |name: &Vec<u8>| !name.is_empty() && name.len() <= NAME_MAX && !name.contains(&0);
        if sum > XATTR_MAX || !xattrs.keys().all(good) {
            return Err(BuildError::BadXattrs);
        }
        let mut set = Vec::with_capacity(2 + sum + xattrs.len() * 6);
        set.extend_from_slice(&u16::try_from(xattrs.len()).map_err(|_| BuildError::BadXattrs)?.to_le_bytes());
        for (name, value) in xattrs {
            set.extend_from_slice(
                &u16::try_from(name.len()).map_err(|_| BuildError::BadXattrs)?.to_le_bytes(),
            );
            set.extend_from_slice(
                &u32::try_from(value.len()).map_err(|_| BuildError::BadXattrs)?.to_le_bytes(),
            );
            set.extend_from_slice(name);
            set.extend_from_slice(value);
        }
        let hash = self.hasher.hash_one(&set);
        if let Some(&(offset, len)) = self.known.get(&hash)
            && self.get(offset, len) == set
        {
            return Ok(Some((offset, len)));
        }
        let offset = u32::try_from(self.bytes.len()).map_err(|_| BuildError::TooManyEntries)?;
        let len = u32::try_from(set.len()).map_err(|_| BuildError::TooManyEntries)?;
        self.bytes.extend_from_slice(&set);
        self.known.insert(hash, (offset, len));
        Ok(Some((offset, len)))
    }

    pub(crate) fn get(&self, offset: u32, len: u32) -> &[u8] {
        self.bytes.get(at(offset)..).and_then(|rest| rest.get(..at(len))).unwrap_or_default()
    }
}
