// SPDX-License-Identifier: Apache-2.0
//! The mailbox: memory of the guest's agent that the machine's process writes while the machine stands still.
//!
//! ```text
//!   0        8         12        16                        LEN
//!   ┌────────┬─────────┬─────────┬─────────────────────────┐   pages in the agent's memory, little endian
//!   │ magic  │ state   │ length  │ bytes …                 │
//!   └────────┴─────────┴─────────┴─────────────────────────┘
//!
//!   IDLE ──the agent waits──► WAITING ──the machine stands still, its process writes, it goes on──► FULL
//!    ▲                                                                                                │
//!    └──────────────────────────────── the agent has read ──────────────────────────────────────────┘
//! ```
//!
//! The agent waits in user mode, looking at `state`. So a machine can be frozen between two instructions of a program of
//! ours, and the first thing it does in its next life is to read what it is to be: no interrupt, no queue, no system
//! call, and nobody else's code before that.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of it: whole pages, enough for a container as they usually are.
pub const LEN: usize = 16 * 1024;
pub const PAGE: usize = 4096;
pub const MAGIC: [u8; 8] = *b"isopodMB";
pub const STATE_AT: usize = 8;
pub const LENGTH_AT: usize = 12;
pub const BYTES_AT: usize = 16;
/// Most bytes it takes.
pub const ROOM: usize = LEN - BYTES_AT;

pub const IDLE: u32 = 0;
pub const WAITING: u32 = 1;
pub const FULL: u32 = 2;

#[repr(C, align(4096))]
struct Pages {
    magic: UnsafeCell<[u8; 8]>,
    state: AtomicU32,
    length: AtomicU32,
    bytes: UnsafeCell<[u8; ROOM]>,
}

const _: () = assert!(size_of::<Pages>() == LEN);

// SAFETY: `Mailbox` is the only way to the cells, and there is one of it.
unsafe impl Sync for Pages {}

static PAGES: Pages = Pages {
    magic: UnsafeCell::new([0; 8]),
    state: AtomicU32::new(IDLE),
    length: AtomicU32::new(0),
    bytes: UnsafeCell::new([0; ROOM]),
};

/// This process's one mailbox.
#[derive(Debug)]
pub struct Mailbox(());

impl Mailbox {
    /// `None` if it was taken before.
    pub fn take() -> Option<Self> {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        (TAKEN.swap(1, Ordering::SeqCst) == 0).then_some(Self(()))
    }

    /// Where it is, in this process's memory.
    pub fn address(&self) -> u64 {
        ptr::from_ref(&PAGES) as u64
    }

    /// Waits until there is something in it, and gives that. Waiting is looking, without a pause: whoever lets a
    /// process do this is about to stop its machine.
    pub fn wait(&mut self) -> &[u8] {
        self.touch();
        PAGES.state.store(WAITING, Ordering::Release);
        while PAGES.state.load(Ordering::Acquire) != FULL {
            spin_loop();
        }
        PAGES.state.store(IDLE, Ordering::Relaxed);
        let len = usize::try_from(PAGES.length.load(Ordering::Relaxed)).unwrap_or(ROOM).min(ROOM);
        // SAFETY: the bytes were written before the state, and nobody writes them again until the next `wait`, which
        // needs this mailbox for itself and so ends this borrow.
        let bytes = unsafe { &*PAGES.bytes.get() };
        &bytes[..len]
    }

    /// Makes every page this process's own and present, so that it can be written from outside.
    fn touch(&mut self) {
        // SAFETY: nobody reads the magic but the outside, which does so while this machine stands still.
        unsafe { *PAGES.magic.get() = MAGIC };
        let first = PAGES.bytes.get().cast::<u8>();
        for at in (PAGE - BYTES_AT..ROOM).step_by(PAGE) {
            let byte = first.wrapping_add(at);
            // SAFETY: `at` is inside the array; `self` is the only way to the bytes, and is borrowed for itself.
            unsafe { byte.write_volatile(0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn what_is_put_in_while_it_waits_is_what_it_gives() {
        let mut mailbox = Mailbox::take().unwrap();
        assert!(Mailbox::take().is_none());
        assert_eq!(mailbox.address() % 4096, 0);
        let outside = thread::spawn(|| {
            while PAGES.state.load(Ordering::Acquire) != WAITING {
                thread::sleep(Duration::from_millis(1));
            }
            // SAFETY: the owner waits, and reads nothing before the state says so.
            unsafe { (&mut *PAGES.bytes.get())[..3].copy_from_slice(b"abc") };
            PAGES.length.store(3, Ordering::Relaxed);
            PAGES.state.store(FULL, Ordering::Release);
        });
        assert_eq!(mailbox.wait(), b"abc");
        outside.join().unwrap();
    }
}
