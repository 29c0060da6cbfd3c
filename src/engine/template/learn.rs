// SPDX-License-Identifier: Apache-2.0
//! What a start touches of its template: the first start finds out, the others are spared the page faults.

use crate::machine::{Refusal, Watched};
use isopod_sys::unnamed::Unnamed;
use std::path::PathBuf;

/// Far more than a start touches; the machine that writes the list may be its guest's by now.
const LIST_MAX: u64 = 256 << 10;

/// Where the list is to be.
#[derive(Debug)]
pub(crate) struct Learns {
    pub(super) folder: PathBuf,
    pub(super) name: String,
}

impl Learns {
    /// From a machine whose container has just begun. To know nothing costs the next start a millisecond, nothing else.
    pub(crate) fn from(self, machine: &mut dyn Watched) -> Result<(), Refusal> {
        if let Ok(list) = Unnamed::new(&self.folder, 0o600) {
            machine.touched(list.file())?;
            if list.file().metadata().is_ok_and(|at| at.len() <= LIST_MAX) {
                let _ = list.link(&self.name);
            }
        }
        Ok(())
    }
}
