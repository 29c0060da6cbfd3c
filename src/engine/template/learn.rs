// SPDX-License-Identifier: Apache-2.0
//! What a start touches of its template: the first start finds out, the others are spared the page faults.

use crate::machine::{Refusal, Watched};
use isopod_sys::unnamed::Unnamed;
use isopod_vmm::touched::{MOST_BYTES, checked};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

/// Where the list is to be.
#[derive(Debug)]
pub(crate) struct Learns {
    pub(super) folder: PathBuf,
    pub(super) name: String,
}

impl Learns {
    /// From a machine whose container has just begun. To know nothing costs the next start a millisecond, nothing else.
    pub(crate) fn from(self, machine: &mut dyn Watched) -> Result<(), Refusal> {
        // The machine may be its guest's by now, and keeps what it is given: it writes into memory of its own account, and
        // what others will read is a copy of that.
        let Ok(list) = memfd_create("touched", MemfdFlags::CLOEXEC).map(File::from) else { return Ok(()) };
        machine.touched(&list)?;
        let _ = self.keep(list);
        Ok(())
    }

    fn keep(&self, mut list: File) -> Option<()> {
        let mut bytes = Vec::new();
        list.rewind().ok()?;
        list.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        let checked = checked(&bytes)?;
        let file = Unnamed::new(&self.folder, 0o600).ok()?;
        file.file().write_all(&checked).ok()?;
        file.link(&self.name).ok().map(drop)
    }
}
