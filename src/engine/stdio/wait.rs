// SPDX-License-Identifier: Apache-2.0
//! Waiting for whoever has something for the loop, until the next deadline.

use super::still::Standing;
use super::{Input, MAX_UNANSWERED, Session};
use crate::agent::Output;
use crate::machine::Watched;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Stdin,
    Stdout,
    Stderr,
    Signals,
    Machine,
    Agent,
    Control,
}

impl Who {
    pub(super) fn of(output: Output) -> Self {
        match output {
            Output::Stdout => Self::Stdout,
            Output::Stderr => Self::Stderr,
        }
    }
}

pub(super) struct Ready(Vec<Who>);

impl Ready {
    pub(super) fn has(&self, who: Who) -> bool {
        self.0.contains(&who)
    }
}

impl Session<'_> {
    pub(super) fn wait<'s>(&'s self, machine: &'s dyn Watched) -> Ready {
        let mut fds = Vec::with_capacity(6);
        let mut who = Vec::with_capacity(6);
        let mut add = |fd: BorrowedFd<'s>, flags, name| {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            who.push(name);
        };
        for (n, output) in [Who::Stdout, Who::Stderr].into_iter().enumerate() {
            if !self.sinks[n].is_empty() {
                add(self.sinks[n].as_fd(), PollFlags::OUT, output);
            }
        }
        // What the agent does not read of ours is not added to, whatever room it says it has.
        if self.input == Input::Open
            && self.standing.barrier().is_none()
            && self.to_agent.is_empty()
            && self.conversation.input_room() > 0
        {
            add(self.streams.stdin, PollFlags::IN, Who::Stdin);
        }
        // A machine that is paused takes none; they come when it goes on.
        if self.conversation.unanswered() < MAX_UNANSWERED && !matches!(self.standing, Standing::Paused) {
            add(self.signals.as_fd(), PollFlags::IN, Who::Signals);
        }
        add(machine.fd(), PollFlags::IN, Who::Machine);
        if self.hung_up.is_none() {
            let out = if self.sent < self.sendable() { PollFlags::OUT } else { PollFlags::empty() };
            add(self.agent.as_fd(), PollFlags::IN | out, Who::Agent);
        }
        // One wish at a time.
        if let Some(control) = self.control.as_ref().filter(|_| !self.standing.is_saving()) {
            add(control.watched(), PollFlags::IN, Who::Control);
        }
        let left = self.deadline().map(|(at, ..)| at.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        // Interrupted or failed, there is nothing to do but look again; the deadline is looked at in any case.
        let _ = poll(&mut fds, timeout.as_ref());
        Ready(
            who.into_iter()
                .zip(&fds)
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|(who, _)| who)
                .collect(),
        )
    }
}
