// SPDX-License-Identifier: Apache-2.0
//! Credit: how much each side of a connection may still send (virtio 1.3 §5.10.6.3).
//!
//! ```text
//!    guest                                        host
//!      │── data ──►  received ─┬─ held ─┬► forwarded (to the socket)
//!      │                       └────────┘   at most BUF_ALLOC
//!      │◄─ every packet: BUF_ALLOC, forwarded ──  told
//!      │
//!      │◄────────────────────────── data ──  sent, never past peer_forwarded + peer_alloc
//!      │── every packet: buf_alloc, fwd_cnt ──►   peer_alloc, peer_forwarded
//! ```
//!
//! All counters are free-running and wrap at 2^32, as on the wire. What the guest says of its own buffers is
//! not judged: bytes for it go straight from the socket into memory that it posted, so that a lie (a huge
//! `buf_alloc`, shrunk in flight, a `fwd_cnt` that runs backwards) costs it alone, in packets it drops or in
//! a stall. What it sends is judged: one byte more than there is room for ends the connection.

use serde::{Deserialize, Serialize};

/// The buffer we advertise, and the most that is ever held for a socket that does not take it.
pub(super) const BUF_ALLOC: u32 = 256 * 1024;

/// The guest hears of room in halves of the buffer, not packet by packet: a packet costs it an interrupt.
const WORTH_TELLING: u32 = BUF_ALLOC / 2;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Credit {
    pub(super) received: u32,
    pub(super) forwarded: u32,
    pub(super) told: u32,
    pub(super) sent: u32,
    pub(super) peer_alloc: u32,
    pub(super) peer_forwarded: u32,
}

/// The guest sent more than it was given room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overrun;

impl Credit {
    /// A packet came, and with it what the guest says of its buffer.
    pub(super) fn hear(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.peer_alloc = buf_alloc;
        self.peer_forwarded = fwd_cnt;
    }

    /// Bytes the guest has room for.
    pub(super) fn room(&self) -> u32 {
        self.peer_alloc.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
    }

    /// `n` bytes go to the guest; the caller asked `room` first.
    pub(super) fn send(&mut self, n: u32) {
        debug_assert!(n <= self.room());
        self.sent = self.sent.wrapping_add(n);
    }

    /// `n` bytes came from the guest.
    pub(super) fn receive(&mut self, n: u32) -> Result<(), Overrun> {
        if n > BUF_ALLOC - self.held() {
            return Err(Overrun);
        }
        self.received = self.received.wrapping_add(n);
        Ok(())
    }

    /// `n` of the bytes held went on to the socket.
    pub(super) fn forward(&mut self, n: u32) {
        debug_assert!(n <= self.held());
        self.forwarded = self.forwarded.wrapping_add(n.min(self.held()));
    }

    /// Bytes that came and did not go on yet; at most `BUF_ALLOC`.
    pub(super) fn held(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// Whether so much went on since the guest last heard of it that a packet should say so.
    pub(super) fn update_is_due(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= WORTH_TELLING
    }

    /// `buf_alloc` and `fwd_cnt` of a packet that is about to go out.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.told = self.forwarded;
        (BUF_ALLOC, self.forwarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_wrap_without_losing_a_byte() {
        let start = u32::MAX - 10;
        let mut credit =
            Credit { received: start, forwarded: start, told: start, sent: start, ..Credit::default() };
        credit.hear(100, start);
        credit.send(60);
        assert_eq!(credit.room(), 40);
        credit.receive(50).unwrap();
        credit.forward(20);
        assert_eq!(credit.held(), 30);
        assert_eq!(credit.tell(), (BUF_ALLOC, 9));
    }

    #[test]
    fn a_buffer_that_shrinks_in_flight_leaves_no_room() {
        let mut credit = Credit::default();
        credit.hear(u32::MAX, 0);
        credit.send(1 << 20);
        credit.hear(4096, 0);
        assert_eq!(credit.room(), 0);
    }

    #[test]
    fn a_forward_count_that_runs_backwards_leaves_less_room_never_more() {
        let mut credit = Credit::default();
        credit.hear(4096, 0);
        credit.send(4096);
        credit.hear(4096, 4096);
        assert_eq!(credit.room(), 4096);
        credit.hear(4096, 100);
        assert_eq!(credit.room(), 100);
        credit.hear(4096, 5000);
        assert_eq!(credit.room(), 0);
    }

    #[test]
    fn a_guest_that_fills_the_buffer_hears_of_room_once_half_of_it_is_free() {
        let mut credit = Credit::default();
        credit.receive(BUF_ALLOC).unwrap();
        assert_eq!(credit.receive(1), Err(Overrun));
        credit.forward(WORTH_TELLING - 1);
        assert!(!credit.update_is_due());
        credit.forward(1);
        assert!(credit.update_is_due());
        credit.tell();
        assert!(!credit.update_is_due());
    }

    proptest! {
        #[test]
        fn an_honest_guest_is_never_caught_and_never_waits_for_good(
            steps in prop::collection::vec((1u32..=65536, 0u32..=65536), 1..300),
        ) {
            let mut credit = Credit::default();
            let (mut told, mut sent) = (0u32, 0u32);
            for (want, drain) in steps {
                let n = want.min(BUF_ALLOC - sent.wrapping_sub(told));
                prop_assert_eq!(credit.receive(n), Ok(()));
                sent = sent.wrapping_add(n);
                credit.forward(drain.min(credit.held()));
                if credit.update_is_due() {
                    told = credit.tell().1;
                }
            }
            credit.forward(credit.held());
            if credit.update_is_due() {
                told = credit.tell().1;
            }
            prop_assert!(sent.wrapping_sub(told) < BUF_ALLOC, "an empty buffer, and a guest that sees no room");
        }
    }
}
