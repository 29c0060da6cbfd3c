// SPDX-License-Identifier: Apache-2.0
//! Writes an envelope: the memory first and the head last, so that a file whose writer died has no head.

use super::header::{self, Header};
use super::pages::{AT_ONCE, PagesHash, runs};
use super::{Digest, Identity, MAX_IDENTITY, MAX_STATE, PAGE};
use crate::memory::GuestMemory;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use thiserror::Error;
use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, MemoryRegionAddress};

#[derive(Debug, Error)]
pub enum SealError {
    #[error("{what} of {len} bytes is too large; {most} are possible")]
    TooLarge { what: &'static str, len: usize, most: u32 },
    #[error("the guest's memory has {have} bytes, and the identity says {mib} MiB")]
    MemoryLen { have: u64, mib: u32 },
    #[error("a region of the guest's memory has {len} bytes, which are no whole pages")]
    Region { len: u64 },
    #[error("the identity cannot be written as JSON")]
    Identity(#[source] serde_json::Error),
    #[error("cannot read the guest's memory")]
    Memory(#[source] GuestMemoryError),
    #[error("cannot write the file")]
    Write(#[source] io::Error),
}

/// Writes all of `file` anew, down to the disk, and gives the digest of its head, which names all there is in it.
///
/// The memory's regions are laid one after the other. The guest must stand still: what is in the file is what its digest
/// is of in any case, but of a guest that runs it is no one moment. Nothing of an untouched memory is allocated by this.
pub fn seal(
    file: &File,
    identity: &Identity,
    state: &[u8],
    memory: &GuestMemory,
) -> Result<Digest, SealError> {
    let json = serde_json::to_vec(identity).map_err(SealError::Identity)?;
    let have = memory.iter().map(GuestMemoryRegion::len).sum();
    if have != u64::from(identity.memory_mib) << 20 {
        return Err(SealError::MemoryLen { have, mib: identity.memory_mib });
    }
    if let Some(ragged) = memory.iter().find(|region| !region.len().is_multiple_of(PAGE)) {
        return Err(SealError::Region { len: ragged.len() });
    }
    let identity_len = bounded("an identity", &json, MAX_IDENTITY)?;
    let state_len = bounded("a state", state, MAX_STATE)?;
    let mut header = Header::around(identity_len, state_len, have);
    // To nothing first: what is not written must be zero, whatever the file had in it.
    file.set_len(0).and_then(|()| file.set_len(header.file_len())).map_err(SealError::Write)?;
    header.memory_digest = write_memory(file, header.memory_offset, memory)?;
    let (head, digest) = head(&header, &json, state);
    file.write_all_at(&head, 0).and_then(|()| file.sync_all()).map_err(SealError::Write)?;
    Ok(digest)
}

fn bounded(what: &'static str, bytes: &[u8], most: u32) -> Result<u32, SealError> {
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= most);
    len.ok_or(SealError::TooLarge { what, len: bytes.len(), most })
}

/// The head without its padding, which the file has already.
fn head(header: &Header, json: &[u8], state: &[u8]) -> (Vec<u8>, Digest) {
    let mut head = [&header.to_bytes(), json, state].concat();
    let used = head.len();
    head.resize(used.next_multiple_of(super::PAGE_LEN), 0);
    let digest = header::put_digest(&mut head);
    head.truncate(used);
    (head, digest)
}

/// Page by page by way of a buffer, which is what is looked at, hashed and written: three looks at the guest's memory
/// could be of three contents. Reading a page that was never touched gives the kernel's page of zeros and takes no other.
fn write_memory(file: &File, offset: u64, memory: &GuestMemory) -> Result<Digest, SealError> {
    let mut hash = PagesHash::default();
    let mut buffer = vec![0; AT_ONCE];
    let mut offset = offset;
    for region in memory.iter() {
        let mut done = 0;
        while done < region.len() {
            let n = usize::try_from(region.len() - done).map_or(AT_ONCE, |left| left.min(AT_ONCE));
            let bytes = &mut buffer[..n];
            region.read_slice(bytes, MemoryRegionAddress(done)).map_err(SealError::Memory)?;
            for run in runs(bytes) {
                let at = offset + run.start as u64;
                hash.update(at, &bytes[run.clone()]);
                file.write_all_at(&bytes[run], at).map_err(SealError::Write)?;
            }
            done += n as u64;
            offset += n as u64;
        }
    }
    Ok(hash.finish())
}
