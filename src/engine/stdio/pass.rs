// SPDX-License-Identifier: Apache-2.0
//! Passing bytes on: the process's output to us, our input and words to the agent.

use super::{Input, Session};
use crate::agent::{INPUT_PIECE, Output};
use crate::sink::{Sink, Wrote};
use crate::timings::Mark;
use isopod_protocol::StreamId;
use isopod_protocol::frame::{put_data, put_eof, put_window};
use rustix::io::{Errno, read, retry_on_intr};
use rustix::net::{SendFlags, send};

impl<'a> Session<'a> {
    pub(super) fn take_output(&mut self, output: Output, bytes: &[u8]) {
        self.timings.mark(Mark::FirstByte);
        if !self.sink(output).push(bytes) {
            self.consumed(output, bytes.len());
        }
    }

    pub(super) fn write_output(&mut self, output: Output) {
        match self.sink(output).write() {
            Wrote::Bytes(n) => self.consumed(output, n),
            Wrote::Broken(dropped) => {
                self.consumed(output, dropped);
                put_eof(&mut self.to_agent, output.id());
            }
        }
    }

    pub(super) fn consumed(&mut self, output: Output, n: usize) {
        if let Some(more) = self.conversation.output_consumed(output, n) {
            put_window(&mut self.to_agent, output.id(), more);
        }
    }

    pub(super) fn sink(&mut self, output: Output) -> &mut Sink<'a> {
        let [stdout, stderr] = &mut self.sinks;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    pub(super) fn read_input(&mut self) {
        // Not on the stack, which would be this large for as long as the container lives.
        let mut buf = vec![0; self.conversation.input_room().min(INPUT_PIECE)];
        match retry_on_intr(|| read(self.streams.stdin, &mut buf)) {
            Ok(n) if n > 0 => {
                put_data(&mut self.to_agent, StreamId::STDIN, &buf[..n]);
                self.conversation.input_sent(n);
            }
            Err(Errno::AGAIN) => {}
            _ => self.end_input(),
        }
    }

    /// There is no more to come.
    pub(super) fn end_input(&mut self) {
        put_eof(&mut self.to_agent, StreamId::STDIN);
        self.conversation.input_ended();
        self.input = Input::Closed;
    }

    /// How much of what there is to send may be sent now.
    pub(super) fn sendable(&self) -> usize {
        self.standing.barrier().unwrap_or(self.to_agent.len())
    }

    /// Sends what there is to send, as far as the agent takes it.
    pub(super) fn talk(&mut self) {
        while self.sent < self.sendable() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match retry_on_intr(|| send(&self.agent, &self.to_agent[self.sent..self.sendable()], flags)) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => break,
                // It has hung up; reading tells.
                Err(_) => self.sent = self.sendable(),
            }
        }
        self.to_agent.drain(..self.sent);
        self.standing.sent(self.sent);
        self.sent = 0;
    }
}
