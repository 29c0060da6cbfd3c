// SPDX-License-Identifier: Apache-2.0
//! The machine's side of the agent's mailbox (`isopod_sys::mailbox` draws it): found and filled while the machine stands
//! still. The guest says where it is; all it can win by a lie is to be written to elsewhere in its own memory.

use crate::memory::GuestMemory;
use isopod_sys::mailbox::{BYTES_AT, FULL, LEN, LENGTH_AT, MAGIC, PAGE, ROOM, STATE_AT, WAITING};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// The privilege level, in a code segment's selector, of user programs.
const USER: u16 = 3;

#[derive(Debug, Error)]
pub(crate) enum DeliverError {
    #[error("{0} bytes are more than the agent's mailbox takes ({ROOM})")]
    TooLong(usize),
    #[error("the agent does not wait at its mailbox")]
    NotWaiting,
    #[error("the agent's mailbox is not in the guest's memory")]
    Memory(#[from] GuestMemoryError),
}

/// Where its pages are in the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mailbox {
    pages: Vec<u64>,
}

/// The mailbox at `address` of the program that waits at it: one of those that the processors are at.
pub(crate) fn find(vcpus: &[VcpuFd], memory: &GuestMemory, address: u64) -> Option<Mailbox> {
    vcpus.iter().find_map(|vcpu| {
        let in_user_mode = vcpu.get_sregs().is_ok_and(|sregs| sregs.cs.selector & USER == USER);
        if !in_user_mode {
            return None;
        }
        let page = |at: usize| {
            let translation = vcpu.translate_gva(address.wrapping_add(at as u64)).ok()?;
            (translation.valid != 0).then_some(translation.physical_address)
        };
        let pages = (0..LEN).step_by(PAGE).map(page).collect::<Option<_>>()?;
        let mailbox = Mailbox { pages };
        mailbox.is_waited_at(memory).then_some(mailbox)
    })
}

impl Mailbox {
    fn is_waited_at(&self, memory: &GuestMemory) -> bool {
        let Some(first) = self.pages.first() else { return false };
        let mut magic = [0; MAGIC.len()];
        let has_magic = memory.read_slice(&mut magic, GuestAddress(*first)).is_ok() && magic == MAGIC;
        has_magic && memory.read_obj::<u32>(self.at(STATE_AT)).is_ok_and(|state| state == WAITING)
    }

    /// Puts bytes into it. The machine stands still.
    pub(crate) fn fill(&self, memory: &GuestMemory, bytes: &[u8]) -> Result<(), DeliverError> {
        if bytes.len() > ROOM {
            return Err(DeliverError::TooLong(bytes.len()));
        }
        if !self.is_waited_at(memory) {
            return Err(DeliverError::NotWaiting);
        }
        let mut at = BYTES_AT;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(PAGE - at % PAGE));
            memory.write_slice(piece, self.at(at))?;
            (at, rest) = (at + piece.len(), behind);
        }
        memory.write_obj(u32::try_from(bytes.len()).unwrap_or(0), self.at(LENGTH_AT))?;
        memory.write_obj(FULL, self.at(STATE_AT))?;
        Ok(())
    }

    /// The guest's address of a byte of it; one that is nowhere if there is none, as a file's state may have it.
    fn at(&self, offset: usize) -> GuestAddress {
        let page = self.pages.get(offset / PAGE).copied().unwrap_or(u64::MAX);
        GuestAddress(page.saturating_add((offset % PAGE) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    fn mailbox(memory: &GuestMemory) -> Mailbox {
        memory.write_slice(&MAGIC, GuestAddress(0x9000)).unwrap();
        memory.write_obj(WAITING, GuestAddress(0x9008)).unwrap();
        Mailbox { pages: vec![0x9000, 0x3000, 0x7000, 0x1000] }
    }

    #[test]
    fn bytes_go_through_its_pages_in_their_order() {
        let memory = memory::new(32).unwrap();
        mailbox(&memory).fill(&memory, &[7; 5000]).unwrap();
        let mut all = vec![0; 8192];
        memory.read_slice(&mut all[..4096], GuestAddress(0x9000)).unwrap();
        memory.read_slice(&mut all[4096..], GuestAddress(0x3000)).unwrap();
        assert_eq!(all[8..16], [2, 0, 0, 0, 0x88, 0x13, 0, 0]);
        assert!(all[16..5016].iter().all(|b| *b == 7) && all[5016..].iter().all(|b| *b == 0));
    }

    #[test]
    fn nobody_who_does_not_wait_gets_anything() {
        let memory = memory::new(32).unwrap();
        let mailbox = mailbox(&memory);
        assert!(matches!(mailbox.fill(&memory, &[0; ROOM + 1]), Err(DeliverError::TooLong(_))));
        mailbox.fill(&memory, &[1; ROOM]).unwrap();
        assert!(matches!(mailbox.fill(&memory, b"x"), Err(DeliverError::NotWaiting)));
    }

    #[test]
    fn pages_that_are_nowhere_are_an_error() {
        let memory = memory::new(32).unwrap();
        let mut mailbox = mailbox(&memory);
        mailbox.pages.truncate(1);
        assert!(matches!(mailbox.fill(&memory, &[0; 9000]), Err(DeliverError::Memory(_))));
        mailbox.pages[0] = u64::MAX;
        assert!(matches!(mailbox.fill(&memory, b"x"), Err(DeliverError::NotWaiting)));
    }
}
