// SPDX-License-Identifier: Apache-2.0
//! The pages of a template that a start touches: found out once, and from then on mapped beside the guest's first steps.
//!
//! ```text
//!   first start:  /proc/PID/pagemap of the machine ──► runs of pages, read or written ──► a list beside the template
//!   each other:   the list ──► MADV_POPULATE_READ, MADV_POPULATE_WRITE ──► no fault on them while the guest starts
//! ```
//!
//! The list is a hint: one that is wrong maps other pages than are needed, and no more than `MOST` of them.

use crate::memory::GuestMemory;
use isopod_sys::volatile::populate;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

const PAGE: u64 = 4096;
/// Pages that are mapped up front at most: 32 MiB.
const MOST: u64 = 8192;
/// Runs of read pages nearer than this are one: another system call costs more than so many pages of a file that are in
/// memory anyway. A page written for nothing would be memory of this machine's alone.
const GAP: u64 = 4;
/// Bytes of a list.
pub const MOST_BYTES: u64 = 256 * 1024;
/// Pages whose entries are looked at a time.
const AT_ONCE: usize = 8192;

/// Bits of an entry of pagemap (`Documentation/admin-guide/mm/pagemap.rst`).
const PRESENT: u64 = 1 << 63;
/// Of a file or shared: of a private mapping one that was only read.
const OF_FILE: u64 = 1 << 61;

#[derive(Debug, Error)]
pub(crate) enum TouchedError {
    #[error("cannot read where the pages are")]
    Pagemap(#[source] io::Error),
    #[error("cannot write the list of pages")]
    Write(#[source] io::Error),
    #[error("cannot encode the list of pages")]
    Encode(#[from] postcard::Error),
}

/// Pages of the guest's, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    first: u64,
    count: u64,
    written: bool,
}

/// Writes down which pages of `memory` this process has mapped by now; `pagemap` is its own.
pub(crate) fn record(memory: &GuestMemory, pagemap: &File, list: &mut File) -> Result<(), TouchedError> {
    let mut runs = Vec::new();
    for region in memory.iter() {
        let host = memory.get_host_address(region.start_addr()).map_or(0, |host| host as u64);
        let (mut at, end) = (0, region.len() / PAGE);
        while at < end {
            let count = usize::try_from(end - at).map_or(AT_ONCE, |left| left.min(AT_ONCE));
            let mut entries = vec![0; count * 8];
            let place = (host / PAGE + at) * 8;
            pagemap.read_exact_at(&mut entries, place).map_err(TouchedError::Pagemap)?;
            for (page, entry) in (at..).zip(entries.chunks_exact(8)) {
                let entry = u64::from_ne_bytes(entry.try_into().expect("chunks of eight"));
                if entry & PRESENT != 0 {
                    add(&mut runs, region.start_addr().0 / PAGE + page, entry & OF_FILE == 0);
                }
            }
            at += count as u64;
        }
    }
    // One that has touched so much did more than start: what it needed is no hint for others.
    if runs.iter().map(|run: &Run| run.count).sum::<u64>() > MOST {
        runs.clear();
    }
    list.write_all(&postcard::to_stdvec(&runs)?).map_err(TouchedError::Write)
}

fn add(runs: &mut Vec<Run>, page: u64, written: bool) {
    match runs.last_mut() {
        Some(last)
            if last.written == written
                && page - (last.first + last.count) <= if written { 0 } else { GAP } =>
        {
            last.count = page + 1 - last.first;
        }
        _ => runs.push(Run { first: page, count: 1, written }),
    }
}

/// What a machine wrote, which may be its guest's by then, as the list that others are given; `None` if it is none.
#[must_use]
pub fn checked(list: &[u8]) -> Option<Vec<u8>> {
    let runs: Vec<Run> = postcard::from_bytes(list).ok()?;
    let pages = runs.iter().try_fold(0, |sum: u64, run| sum.checked_add(run.count))?;
    if pages > MOST { None } else { postcard::to_stdvec(&runs).ok() }
}

/// What a list says, unjudged; nothing if it is none.
pub(crate) fn read(list: &File) -> Vec<Run> {
    let mut bytes = Vec::new();
    let read = list.take(MOST_BYTES).read_to_end(&mut bytes);
    read.ok().and_then(|_| postcard::from_bytes(&bytes).ok()).unwrap_or_default()
}

/// Maps what a list names. What cannot be had now is had when it is touched.
pub(crate) fn map(memory: &GuestMemory, runs: &[Run]) {
    let mut left = MOST;
    for &Run { first, count, written } in runs {
        let count = count.min(left);
        left -= count;
        let start = GuestAddress(first.saturating_mul(PAGE));
        // Run by run, and each within one region: a page that is not there is passed over.
        let bytes = usize::try_from(count * PAGE).unwrap_or(0);
        if let Ok(slice) = memory.get_slice(start, bytes) {
            let _ = populate(&[slice], bytes, written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use std::io::Seek;
    use vm_memory::Bytes;

    #[test]
    fn near_pages_of_a_kind_are_one_run() {
        let mut runs = Vec::new();
        for (page, written) in [(1, true), (2, true), (4, true), (21, false), (25, false), (40, false)] {
            add(&mut runs, page, written);
        }
        let run = |first, count, written| Run { first, count, written };
        assert_eq!(runs, [run(1, 2, true), run(4, 1, true), run(21, 5, false), run(40, 1, false)]);
    }

    #[test]
    fn what_was_touched_is_mapped_the_next_time() {
        let before = memory::new(32).unwrap();
        before.write_obj(1u8, GuestAddress(0x5000)).unwrap();
        before.write_obj(1u8, GuestAddress(0x20_0000)).unwrap();
        let mut list = tempfile::tempfile().unwrap();
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        record(&before, &pagemap, &mut list).unwrap();
        list.rewind().unwrap();
        let after = memory::new(32).unwrap();
        map(&after, &read(&list));
        let mut runs = tempfile::tempfile().unwrap();
        record(&after, &pagemap, &mut runs).unwrap();
        let bytes = |file: &File| {
            let mut bytes = vec![0; 64];
            let n = file.read_at(&mut bytes, 0).unwrap();
            bytes.truncate(n);
            bytes
        };
        assert_eq!(bytes(&list), bytes(&runs));
        assert_eq!(postcard::from_bytes::<Vec<Run>>(&bytes(&list)).unwrap().len(), 2);
    }

    #[test]
    fn nonsense_maps_nothing_and_harms_nothing() {
        let memory = memory::new(32).unwrap();
        for bytes in [&b""[..], b"\xff\xff\xff", &[0xff; 4096]] {
            let mut list = tempfile::tempfile().unwrap();
            list.write_all(bytes).unwrap();
            list.rewind().unwrap();
            map(&memory, &read(&list));
        }
        let wild = [
            Run { first: u64::MAX, count: u64::MAX, written: true },
            Run { first: 8191, count: 9, written: true },
        ];
        let mut list = tempfile::tempfile().unwrap();
        list.write_all(&postcard::to_stdvec(&wild.to_vec()).unwrap()).unwrap();
        list.rewind().unwrap();
        map(&memory, &read(&list));
        assert_eq!(checked(&postcard::to_stdvec(&wild.to_vec()).unwrap()), None);
        assert_eq!(checked(&[0xff; 64]), None);
    }

    #[test]
    fn what_is_behind_a_list_is_not_kept() {
        let list = postcard::to_stdvec(&vec![Run { first: 1, count: 2, written: true }]).unwrap();
        assert_eq!(checked(&[&list[..], b"more"].concat()), Some(list));
    }
}
