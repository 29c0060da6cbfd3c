// SPDX-License-Identifier: Apache-2.0
//! The first 100 bytes, all numbers little-endian, and where things lie because of them.
//!
//! ```text
//!    0  magic          12  length of the identity    20  memory_offset    36  digest of the pages
//!    8  version        16  length of the state       28  memory_len       68  digest of the head
//! ```

use super::{Digest, MAX_IDENTITY, MAX_STATE, MEMORY_ALIGN, OpenError, PAGE, VERSION};
use crate::config::MAX_MEMORY_MIB;
use sha2::{Digest as _, Sha256};

pub(super) const LEN: usize = 100;
/// The bytes of the header that are hashed: all before the digest of the head.
const HASHED: usize = 68;
const MAGIC: [u8; 8] = *b"isopodEV";
const MAX_MEMORY: u64 = (MAX_MEMORY_MIB as u64) << 20;

#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) identity_len: u32,
    pub(super) state_len: u32,
    pub(super) memory_offset: u64,
    pub(super) memory_len: u64,
    pub(super) memory_digest: Digest,
}

impl Header {
    /// Where everything lies around parts of these lengths, which must be within their bounds.
    pub(super) fn around(identity_len: u32, state_len: u32, memory_len: u64) -> Self {
        let mut header =
            Self { identity_len, state_len, memory_offset: 0, memory_len, memory_digest: Digest([0; 32]) };
        header.memory_offset = header.head_len().next_multiple_of(MEMORY_ALIGN);
        header
    }

    /// Where the head ends, its padding included, and the pages begin.
    pub(super) fn head_len(&self) -> u64 {
        let whole = LEN as u64 + u64::from(self.identity_len) + u64::from(self.state_len);
        whole.next_multiple_of(PAGE)
    }

    pub(super) fn file_len(&self) -> u64 {
        self.memory_offset + self.memory_len
    }

    pub(super) fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.identity_len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.state_len.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.memory_offset.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.memory_len.to_le_bytes());
        bytes[36..68].copy_from_slice(&self.memory_digest.0);
        bytes
    }

    /// What a file of `have` bytes says that begins with `start`, if it can be true.
    pub(super) fn parse(start: &[u8], have: u64) -> Result<Self, OpenError> {
        if !start.starts_with(&MAGIC) && !MAGIC.starts_with(start) {
            return Err(OpenError::NotOurs);
        }
        let Some(bytes) = start.first_chunk() else {
            return Err(OpenError::CutShort { have, expected: LEN as u64 });
        };
        let found = u32::from_le_bytes(field(bytes, 8));
        if found != VERSION {
            return Err(OpenError::Version { found });
        }
        let header = Self {
            identity_len: u32::from_le_bytes(field(bytes, 12)),
            state_len: u32::from_le_bytes(field(bytes, 16)),
            memory_offset: u64::from_le_bytes(field(bytes, 20)),
            memory_len: u64::from_le_bytes(field(bytes, 28)),
            memory_digest: Digest(field(bytes, 36)),
        };
        header.check(have)
    }

    fn check(self, have: u64) -> Result<Self, OpenError> {
        let bounds = [
            ("an identity", u64::from(self.identity_len), u64::from(MAX_IDENTITY)),
            ("a state", u64::from(self.state_len), u64::from(MAX_STATE)),
            ("a memory", self.memory_len, MAX_MEMORY),
        ];
        if let Some((what, says, most)) = bounds.into_iter().find(|(_, says, most)| says > most) {
            return Err(OpenError::TooLarge { what, says, most });
        }
        let expected = Self::around(self.identity_len, self.state_len, self.memory_len).memory_offset;
        if self.memory_offset != expected || !self.memory_len.is_multiple_of(PAGE) {
            return Err(OpenError::Misplaced { offset: self.memory_offset, len: self.memory_len });
        }
        self.check_file_len(have)?;
        Ok(self)
    }

    pub(super) fn check_file_len(&self, have: u64) -> Result<(), OpenError> {
        let expected = self.file_len();
        match have {
            _ if have < expected => Err(OpenError::CutShort { have, expected }),
            _ if have > expected => Err(OpenError::TooLong { have, expected }),
            _ => Ok(()),
        }
    }
}

/// The digest of a head: of all of it but the digest it has in itself.
pub(super) fn digest(head: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(head.get(..HASHED).unwrap_or(head));
    hash.update(head.get(LEN..).unwrap_or_default());
    Digest(hash.finalize().into())
}

pub(super) fn stated_digest(head: &[u8]) -> Option<Digest> {
    head.first_chunk().map(|header| Digest(field(header, HASHED)))
}

pub(super) fn put_digest(head: &mut [u8]) -> Digest {
    let digest = digest(head);
    head[HASHED..LEN].copy_from_slice(&digest.0);
    digest
}

/// `N` bytes of a header; no caller reaches beyond it.
fn field<const N: usize>(header: &[u8; LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}
