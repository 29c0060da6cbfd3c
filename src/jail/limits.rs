// SPDX-License-Identifier: Apache-2.0
//! What a process may have of what is counted for each process (setrlimit(2)).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::io;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Descriptors.
    pub files: u64,
    /// Most bytes of a file it writes.
    pub file_bytes: u64,
    /// Threads: with an id of its own nobody else's count.
    pub threads: u64,
    /// Bytes of memory that it may write to, a guest's among it, whether it is used or not.
    pub data: u64,
    /// Bytes of addresses, behind which there may be nothing but a table of pages; `None` for a process that maps other
    /// people's files, as large as they are.
    pub addresses: Option<u64>,
}

/// Locked memory: none is ever asked for, but KVM's accounting may.
const LOCKED: u64 = 64 << 10;
/// The first thread's stack; the others' are smaller and made when they are.
const STACK: u64 = 8 << 20;

impl Limits {
    pub(crate) fn set(&self) -> io::Result<()> {
        limit(Resource::Nofile, self.files)?;
        limit(Resource::Fsize, self.file_bytes)?;
        limit(Resource::Nproc, self.threads)?;
        limit(Resource::Memlock, LOCKED)?;
        limit(Resource::Stack, STACK)?;
        limit(Resource::Core, 0)?;
        limit(Resource::Data, self.data)?;
        self.addresses.map_or(Ok(()), |most| limit(Resource::As, most))
    }
}

/// No more than it has already.
fn limit(what: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(what).maximum.map_or(most, |already| already.min(most));
    Ok(setrlimit(what, Rlimit { current: Some(most), maximum: Some(most) })?)
}
