// SPDX-License-Identifier: Apache-2.0
//! What a server has done, for whoever wants to know; the server counts, others look.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

/// Opcodes that are counted one by one; what is above counts as 0.
const OPCODES: usize = 64;

#[derive(Debug)]
pub struct Counters {
    requests: [AtomicU64; OPCODES],
    errors: AtomicU64,
    bytes: AtomicU64,
    mapped: AtomicU64,
}

/// The counts at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// By opcode, those that occurred.
    pub requests: Vec<(u32, u64)>,
    /// Answers that said no, unknown opcodes included.
    pub errors: u64,
    /// Of contents, by READ.
    pub bytes: u64,
    /// Of these, those that were mapped and not copied.
    pub mapped: u64,
}

impl Default for Counters {
    fn default() -> Self {
        let requests = array::from_fn(|_| AtomicU64::new(0));
        Self { requests, errors: AtomicU64::new(0), bytes: AtomicU64::new(0), mapped: AtomicU64::new(0) }
    }
}

impl Counters {
    pub(crate) fn request(&self, opcode: u32) {
        let slot = usize::try_from(opcode).ok().and_then(|opcode| self.requests.get(opcode));
        slot.unwrap_or(&self.requests[0]).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn mapped(&self, bytes: usize) {
        self.mapped.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> Snapshot {
        let counts = (0..).zip(&self.requests).map(|(opcode, count)| (opcode, count.load(Ordering::Relaxed)));
        Snapshot {
            requests: counts.filter(|(_, count)| *count > 0).collect(),
            errors: self.errors.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            mapped: self.mapped.load(Ordering::Relaxed),
        }
    }
}
