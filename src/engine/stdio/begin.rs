// SPDX-License-Identifier: Apache-2.0
//! A session's first words: to an agent that has said hello, to one that waits at its mailbox for a container, and to one
//! that was frozen with a container in it.

use super::still::{ENTROPY, Portrait, Told};
use super::{Input, Session};
use crate::agent::Conversation;
use crate::container::name::random;
use crate::template::Greeting;
use crate::terminal::Raw;
use isopod_protocol::FromHost;
use isopod_protocol::frame::put_from_host;
use isopod_protocol::message::Thaw;
use isopod_sys::mailbox;
use std::mem;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

impl Session<'_> {
    /// For an agent that waits at its mailbox for what it is to start: gives what is to be put there. What does not fit
    /// follows over the line.
    pub(crate) fn first_words(&mut self, greeting: Greeting) -> Vec<u8> {
        self.conversation = Conversation::greeted(self.container.terminal.is_some());
        self.greeted(greeting);
        self.start();
        let fits = self.to_agent.len().min(mailbox::ROOM);
        self.to_agent.drain(..fits).collect()
    }

    pub(super) fn greeted(&mut self, greeting: Greeting) {
        let Greeting { agent, kernel, mailbox } = greeting;
        self.timings.guest(agent, kernel);
        self.mailbox = mailbox;
    }

    /// For an agent that was frozen while it talked to somebody else: likewise.
    pub(crate) fn first_words_to_copy(&mut self, portrait: &Portrait, thaw: Thaw) -> Vec<u8> {
        let thaw = Thaw { realtime_ns: realtime_ns(), ..thaw };
        self.conversation = Conversation::thawing(&portrait.talk);
        self.greeted(portrait.greeting.clone());
        self.input = match (self.input, portrait.talk.input_open) {
            (Input::Early, true) => Input::Early,
            (Input::Closed, true) => {
                self.end_input();
                Input::Closed
            }
            _ => Input::Closed,
        };
        let mut words = Vec::new();
        // A name and a few small files.
        let _ = put_from_host(&mut words, &FromHost::thaw(thaw));
        words
    }

    /// Tells the agent what to start, with what is only true now.
    pub(super) fn start(&mut self) {
        let mut container = mem::take(&mut self.container);
        container.terminal = container.terminal.map(|_| self.terminal_size());
        container.realtime_ns = realtime_ns();
        container.entropy = random::<ENTROPY>().to_vec();
        self.container.terminal = container.terminal;
        // `run` has seen to it that the message is not too long.
        let _ = put_from_host(&mut self.to_agent, &FromHost::start(container));
        self.conversation.start_sent();
        self.since = Instant::now();
    }

    pub(super) fn started(&mut self) {
        self.since = Instant::now();
        self.told.push(Told::Up);
        if self.input == Input::Early {
            self.input = Input::Open;
        }
        if self.container.terminal.is_some()
            && self.input != Input::Closed
            && self.streams.stdin_is_terminal()
        {
            self.raw = Raw::set(self.streams.stdin).ok();
        }
        // It may have changed while the guest booted.
        self.resize();
    }
}

/// The wall clock, in ns since the epoch.
pub(super) fn realtime_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}
