// SPDX-License-Identifier: Apache-2.0
//! One connection, from the guest's REQUEST to its end; no I/O.
//!
//! ```text
//!              Request              GuestSent
//!      Idle ─────────► Connected ─────────────► GuestDone
//!                          │                        │
//!                 HostSent │              HostSent, │
//!                GuestDeaf │              GuestDeaf │
//!                          ▼        GuestSent       ▼         Drained
//!                       HostDone ─────────────► Draining ─────────────► Closed
//!
//!      Reset, Broken: from each of the four in the middle to Closed
//! ```
//!
//! `GuestSent` is a SHUTDOWN that says the guest sends no more, `GuestDeaf` one that says it receives no more,
//! `HostSent` the end of the host's stream, `Drained` that all the guest sent has gone on to the host. What a
//! transition makes us tell the guest is in `step`: RESPONSE, SHUTDOWN or RST. A RST is the last word: it is what
//! a guest that shut down both ways waits for (§5.10.6.5).

use super::credit::Credit;
use super::packet::{Header, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use crate::virtio::RestoreError;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    Idle,
    Connected,
    /// The guest sends no more.
    GuestDone,
    /// Nothing more goes to the guest.
    HostDone,
    /// Both; what the guest sent is still on its way to the host.
    Draining,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Request,
    GuestSent,
    GuestDeaf,
    HostSent,
    Drained,
    /// The guest gave up.
    Reset,
    /// The guest broke the rules, or the host's end is gone.
    Broken,
}

impl State {
    fn after(self, event: Event) -> Self {
        use Event::{Broken, Drained, GuestDeaf, GuestSent, HostSent, Request, Reset};
        use State::{Closed, Connected, Draining, GuestDone, HostDone, Idle};
        match (self, event) {
            (Idle, Request) => Connected,
            (Idle | Closed, _) => self,
            (_, Reset | Broken | Request) => Closed,
            (Connected, GuestSent) => GuestDone,
            (Connected, HostSent | GuestDeaf) => HostDone,
            (GuestDone, HostSent | GuestDeaf) | (HostDone, GuestSent) => Draining,
            (Draining, Drained) => Closed,
            (Connected | GuestDone | HostDone | Draining, _) => self,
        }
    }
}

/// What came of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing is left to do.
    Done,
    /// Its payload is within the credit, and goes to the host.
    Payload,
    /// There is no connection for it to belong to: it is to be answered by RST.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Connection {
    state: State,
    credit: Credit,
    due: Due,
}

impl Default for Connection {
    fn default() -> Self {
        Self { state: State::Idle, credit: Credit::default(), due: Due::default() }
    }
}

impl Connection {
    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether a connection of which nothing is held can be like this. Its counters may be anything else: they wrap, and
    /// what the guest says of its own is not judged.
    pub(super) fn check(&self) -> Result<(), RestoreError> {
        // What was held when it closed was dropped, and nothing of it counts any more.
        if self.state != State::Closed && self.credit.held() != 0 {
            let why = "not as much as was received";
            return Err(RestoreError::Field { field: "device.connection.credit.forwarded", why });
        }
        let sayable = match self.state {
            State::Idle => 0,
            State::Closed => Due::RESET,
            _ => Due::RESPONSE | Due::CREDIT | Due::SHUTDOWN,
        };
        if self.due.0 & !sayable != 0 {
            let why = "a word that is not said in this state";
            return Err(RestoreError::Field { field: "device.connection.due", why });
        }
        Ok(())
    }

    /// A packet of the guest's on this flow, with `header.len` bytes of payload.
    pub(super) fn hear(&mut self, header: &Header) -> Heard {
        let belongs = match self.state {
            State::Idle => header.op == Op::Request,
            State::Closed => false,
            _ => true,
        };
        if !belongs {
            return Heard::Refused;
        }
        self.credit.hear(header.buf_alloc, header.fwd_cnt);
        match header.op {
            Op::Data => return self.hear_data(header.len),
            Op::Request => self.step(Event::Request),
            Op::Reset => self.step(Event::Reset),
            Op::Shutdown => self.hear_shutdown(header.flags),
            Op::CreditUpdate => {}
            Op::CreditRequest => self.due.add(Due::CREDIT),
            Op::Response | Op::Unknown(_) => self.step(Event::Broken),
        }
        Heard::Done
    }

    fn hear_data(&mut self, len: u32) -> Heard {
        let may_send = matches!(self.state, State::Connected | State::HostDone);
        if may_send && self.credit.receive(len).is_ok() {
            return Heard::Payload;
        }
        self.step(Event::Broken);
        Heard::Done
    }

    /// The two bits are hints that, once given, stay (§5.10.6.5).
    fn hear_shutdown(&mut self, flags: u32) {
        if flags & SHUTDOWN_RECEIVE != 0 {
            self.step(Event::GuestDeaf);
        }
        if flags & SHUTDOWN_SEND != 0 {
            self.step(Event::GuestSent);
        }
    }

    /// Moves on, and notes what the guest has to be told of it.
    pub(super) fn step(&mut self, event: Event) {
        let before = self.state;
        self.state = before.after(event);
        if self.state == before {
            return;
        }
        match (self.state, event) {
            (State::Connected, _) => self.due.add(Due::RESPONSE),
            (State::HostDone | State::Draining, Event::HostSent) => self.due.add(Due::SHUTDOWN),
            (State::Closed, Event::Reset) => self.due = Due::default(),
            (State::Closed, _) => self.due = Due(Due::RESET),
            _ => {}
        }
    }

    /// `n` bytes of the guest's went on to the host.
    pub(super) fn forwarded(&mut self, n: u32) {
        self.credit.forward(n);
        let guest_sends = matches!(self.state, State::Connected | State::HostDone);
        if guest_sends && self.credit.update_is_due() {
            self.due.add(Due::CREDIT);
        }
    }

    /// Bytes that may go to the guest now: none unless it listens and has room.
    pub(super) fn room(&self) -> u32 {
        match self.state {
            State::Connected | State::GuestDone => self.credit.room(),
            _ => 0,
        }
    }

    /// `n` bytes, at most `room`, go to the guest.
    pub(super) fn sent(&mut self, n: u32) {
        self.credit.send(n);
    }

    /// Whether the guest has to be told something.
    pub(super) fn has_word(&self) -> bool {
        self.due != Due::default()
    }

    /// The next thing to tell the guest: an operation and its flags.
    pub(super) fn word(&mut self) -> Option<(Op, u32)> {
        self.due.take()
    }

    /// `buf_alloc` and `fwd_cnt` of a packet that is about to go out.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.credit.tell()
    }
}

/// What the guest has to be told: a set, as nothing in it needs saying twice.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Due(u8);

impl Due {
    const RESPONSE: u8 = 1;
    const CREDIT: u8 = 2;
    const SHUTDOWN: u8 = 4;
    const RESET: u8 = 8;

    fn add(&mut self, word: u8) {
        self.0 |= word;
    }

    /// Takes out what is to be said first: the numbers are in that order.
    fn take(&mut self) -> Option<(Op, u32)> {
        let first = self.0 & self.0.wrapping_neg();
        self.0 &= !first;
        match first {
            Self::RESPONSE => Some((Op::Response, 0)),
            Self::CREDIT => Some((Op::CreditUpdate, 0)),
            Self::SHUTDOWN => Some((Op::Shutdown, SHUTDOWN_SEND)),
            Self::RESET => Some((Op::Reset, 0)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
