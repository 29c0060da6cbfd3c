// SPDX-License-Identifier: Apache-2.0
//! What the agent may say, and when. It lives in the guest: all it says is an allegation until it has been here.
//!
//! ```text
//!   Booting ──Hello──► Greeted ──(we send Start)──► Asked ──Started──► Up ──Exited──► Over
//!                                                     └──────Failed──────────────────► Over
//! ```
//!
//! In `Up` the agent may be asked to freeze: `Moving ──(Freeze)──► Asked ──Frozen──► Still ──(Thaw)──► Thawing ──Thawed──►
//! Moving`, and while it stands still it says nothing.
//!
//! Output flows in `Up` alone. An agent that steps out of this is not one to go on with: every error here ends the
//! machine. No I/O, so that a test can say anything.

use crate::template::Greeting;
use isopod_protocol::frame::{Frame, FrameError, StreamId};
use isopod_protocol::message::{AgentSays, Failed, FailedKind, FromAgent, Started};
use isopod_protocol::window::{ReceiveWindow, SendWindow, WindowError};
use isopod_protocol::{VERSION, frame};
use prost::{DecodeError, Message};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most of a text from the guest that is kept.
const MAX_TEXT: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Booting,
    Greeted,
    Asked,
    Up,
    Over,
}

impl Phase {
    fn shown(self) -> &'static str {
        match self {
            Self::Booting => "before its hello",
            Self::Greeted => "before it was told to start anything",
            Self::Asked => "before the process had started",
            Self::Up => "while the process ran",
            Self::Over => "after the process's end",
        }
    }
}

/// Whether the container's processes go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stillness {
    #[default]
    Moving,
    /// Freeze was sent.
    Asked,
    Still,
    /// Thaw was sent.
    Thawing,
}

/// What of a conversation outlives its host's end: how the streams stand while all is still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Talk {
    pub(crate) terminal: bool,
    ended: [bool; 2],
    /// Bytes of stdin that the process has not read yet.
    input_kept: u32,
    /// Whether there can be more of it.
    pub(crate) input_open: bool,
}

/// What the agent did that it must not.
#[derive(Debug, PartialEq, Error)]
pub(crate) enum Misbehaviour {
    #[error("it sent a frame that is none")]
    Frame(#[from] FrameError),
    #[error("it sent a message that is none")]
    NoMessage(#[from] DecodeError),
    #[error("it speaks version {0} of the protocol, not {VERSION}")]
    Version(u32),
    #[error("it sent {what} {}", when.shown())]
    Unexpected { what: &'static str, when: Phase },
    #[error("it sent {what} for stream {stream}, which is not its to send")]
    Stream { what: &'static str, stream: u16 },
    #[error("it sent {what} for stream {stream} after that stream's end")]
    AfterEnd { what: &'static str, stream: u16 },
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error("it sent an answer to no question")]
    Answer,
    #[error("it reads nothing of what it is told")]
    Deaf,
    #[error("it reported an end no process can have (code {code:?}, signal {signal:?})")]
    Exit { code: Option<i32>, signal: Option<i32> },
}

/// What was heard, checked.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard<'a> {
    Hello(Greeting),
    Started(Started),
    Failed {
        kind: FailedKind,
        message: String,
    },
    Answer,
    Exited(ProcessEnd),
    Output(Output, &'a [u8]),
    OutputEnd(Output),
    /// The process wants no more of its stdin.
    InputEnd,
    /// There is more room for stdin.
    InputRoom,
    /// It stands still, or not: `stillness` tells.
    Frozen,
    Thawed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

impl Output {
    pub(crate) fn id(self) -> StreamId {
        match self {
            Self::Stdout => StreamId::STDOUT,
            Self::Stderr => StreamId::STDERR,
        }
    }
}

/// How the process ended, in the ranges there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessEnd {
    pub(crate) code: u8,
    pub(crate) out_of_memory: bool,
}

/// An output's window and whether it is over.
#[derive(Debug, Default)]
struct Incoming {
    window: ReceiveWindow,
    ended: bool,
}

#[derive(Debug)]
pub(crate) struct Conversation {
    phase: Phase,
    terminal: bool,
    /// Signals sent and not yet answered.
    unanswered: usize,
    outputs: [Incoming; 2],
    input: SendWindow,
    stillness: Stillness,
    freeze_failure: Option<String>,
    input_kept: u32,
    input_open: bool,
}

impl Conversation {
    pub(crate) fn new(terminal: bool) -> Self {
        Self {
            phase: Phase::Booting,
            terminal,
            unanswered: 0,
            outputs: [Incoming::default(), Incoming::default()],
            input: SendWindow::default(),
            stillness: Stillness::Moving,
            freeze_failure: None,
            input_kept: 0,
            input_open: true,
        }
    }

    /// With an agent that was frozen while it talked to somebody else, and to which Thaw is about to be sent.
    pub(crate) fn thawing(talk: &Talk) -> Self {
        let output = |ended| Incoming { window: ReceiveWindow::default(), ended };
        Self {
            phase: Phase::Up,
            stillness: Stillness::Thawing,
            outputs: talk.ended.map(output),
            input: SendWindow::behind(talk.input_kept),
            input_open: talk.input_open,
            ..Self::new(talk.terminal)
        }
    }

    /// What a copy of the agent, as it stands now, has to be met with.
    pub(crate) fn talk(&self) -> Talk {
        let ended = [self.outputs[0].ended, self.outputs[1].ended];
        Talk { terminal: self.terminal, ended, input_kept: self.input_kept, input_open: self.input_open }
    }

    pub(crate) fn stillness(&self) -> Stillness {
        self.stillness
    }

    pub(crate) fn freeze_sent(&mut self) {
        self.stillness = Stillness::Asked;
    }

    pub(crate) fn thaw_sent(&mut self) {
        self.stillness = Stillness::Thawing;
    }

    /// Why it did not freeze when it was last asked to.
    pub(crate) fn take_freeze_failure(&mut self) -> Option<String> {
        self.freeze_failure.take()
    }

    /// There will be no more stdin, from either side.
    pub(crate) fn input_ended(&mut self) {
        self.input_open = false;
    }

    /// With an agent that said hello in another life of its machine, and waits.
    pub(crate) fn greeted(terminal: bool) -> Self {
        Self { phase: Phase::Greeted, ..Self::new(terminal) }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// We have sent Start, in answer to the hello.
    pub(crate) fn start_sent(&mut self) {
        if self.phase == Phase::Greeted {
            self.phase = Phase::Asked;
        }
    }

    pub(crate) fn signal_sent(&mut self) {
        self.unanswered += 1;
    }

    /// How many bytes of stdin may be sent now.
    pub(crate) fn input_room(&self) -> usize {
        self.input.room()
    }

    pub(crate) fn input_sent(&mut self, n: usize) {
        self.input.take(n);
    }

    /// `n` bytes of an output were passed on; gives what to grant the agent, once it is worth a frame.
    pub(crate) fn output_consumed(&mut self, output: Output, n: usize) -> Option<u32> {
        let incoming = self.incoming(output);
        let grant = incoming.window.consumed(n);
        grant.filter(|_| !incoming.ended)
    }

    fn incoming(&mut self, output: Output) -> &mut Incoming {
        let [stdout, stderr] = &mut self.outputs;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    pub(crate) fn hear<'a>(&mut self, frame: Frame<'a>) -> Result<Heard<'a>, Misbehaviour> {
        if self.stillness == Stillness::Still {
            return Err(Misbehaviour::Unexpected { what: "something", when: self.phase });
        }
        match frame {
            Frame::Message(bytes) => self.message(FromAgent::decode(bytes)?),
            Frame::Data(stream, bytes) => {
                let output = self.output("data", stream)?;
                self.incoming(output).window.received(bytes.len())?;
                Ok(Heard::Output(output, bytes))
            }
            Frame::Eof(StreamId::STDIN) => {
                self.while_up("an end of reading stdin")?;
                self.input_ended();
                Ok(Heard::InputEnd)
            }
            Frame::Eof(stream) => {
                let output = self.output("an end", stream)?;
                self.incoming(output).ended = true;
                Ok(Heard::OutputEnd(output))
            }
            Frame::Window(StreamId::STDIN, more) => {
                self.while_up("room for stdin")?;
                self.input.grant(more)?;
                Ok(Heard::InputRoom)
            }
            Frame::Window(StreamId(stream), _) => Err(Misbehaviour::Stream { what: "room", stream }),
        }
    }

    fn message(&mut self, message: FromAgent) -> Result<Heard<'static>, Misbehaviour> {
        let unexpected = |what| Err(Misbehaviour::Unexpected { what, when: self.phase });
        match (self.phase, message.says) {
            (Phase::Booting, Some(AgentSays::Hello(hello))) => {
                if hello.version != VERSION {
                    return Err(Misbehaviour::Version(hello.version));
                }
                self.phase = Phase::Greeted;
                let (agent, kernel) = (plain(&hello.agent), plain(&hello.kernel));
                Ok(Heard::Hello(Greeting { agent, kernel, mailbox: hello.mailbox }))
            }
            (Phase::Asked, Some(AgentSays::Started(started))) => {
                self.phase = Phase::Up;
                Ok(Heard::Started(started))
            }
            (Phase::Asked, Some(AgentSays::Failed(failed))) => {
                self.phase = Phase::Over;
                let kind = failed.kind();
                let Failed { message, .. } = failed;
                Ok(Heard::Failed { kind, message: plain(&message) })
            }
            (Phase::Asked | Phase::Up, Some(AgentSays::Ack(_))) => {
                self.unanswered = self.unanswered.checked_sub(1).ok_or(Misbehaviour::Answer)?;
                Ok(Heard::Answer)
            }
            (Phase::Up, Some(AgentSays::Exited(exited))) => {
                let end = process_end(exited.code, exited.signal, exited.out_of_memory)?;
                self.phase = Phase::Over;
                Ok(Heard::Exited(end))
            }
            (_, Some(AgentSays::Hello(_))) => unexpected("a hello"),
            (Phase::Up, Some(AgentSays::Frozen(frozen))) if self.stillness == Stillness::Asked => {
                self.input_kept = frozen.input_kept;
                self.freeze_failure = (!frozen.failure.is_empty()).then(|| plain(&frozen.failure));
                self.stillness =
                    if self.freeze_failure.is_some() { Stillness::Moving } else { Stillness::Still };
                Ok(Heard::Frozen)
            }
            (Phase::Up, Some(AgentSays::Thawed(_))) if self.stillness == Stillness::Thawing => {
                self.stillness = Stillness::Moving;
                Ok(Heard::Thawed)
            }
            (_, Some(AgentSays::Frozen(_))) => unexpected("word of a freeze"),
            (_, Some(AgentSays::Thawed(_))) => unexpected("word of a thaw"),
            (_, Some(AgentSays::Started(_))) => unexpected("word of a process started"),
            (_, Some(AgentSays::Failed(_))) => unexpected("word of a failure"),
            (_, Some(AgentSays::Ack(_))) => unexpected("an answer"),
            (_, Some(AgentSays::Exited(_))) => unexpected("word of a process ended"),
            (_, None) => unexpected("an unknown message"),
        }
    }

    fn output(&mut self, what: &'static str, stream: StreamId) -> Result<Output, Misbehaviour> {
        self.while_up(what)?;
        let output = match stream {
            StreamId::STDOUT => Output::Stdout,
            StreamId::STDERR if !self.terminal => Output::Stderr,
            StreamId(stream) => return Err(Misbehaviour::Stream { what, stream }),
        };
        match self.incoming(output).ended {
            true => Err(Misbehaviour::AfterEnd { what, stream: stream.0 }),
            false => Ok(output),
        }
    }

    fn while_up(&self, what: &'static str) -> Result<(), Misbehaviour> {
        match self.phase {
            Phase::Up => Ok(()),
            when => Err(Misbehaviour::Unexpected { what, when }),
        }
    }
}

/// The exit code a shell would give; a process has a code or a signal, not both.
fn process_end(
    code: Option<i32>,
    signal: Option<i32>,
    out_of_memory: bool,
) -> Result<ProcessEnd, Misbehaviour> {
    let value = match (code, signal) {
        (Some(code), None) => u8::try_from(code).ok(),
        (None, Some(signal @ 1..=64)) => u8::try_from(128 + signal).ok(),
        _ => None,
    };
    let code = value.ok_or(Misbehaviour::Exit { code, signal })?;
    Ok(ProcessEnd { code, out_of_memory })
}

/// A text from the guest as it may be shown on a terminal: short, without control characters.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(MAX_TEXT).map(shown).collect()
}

/// Most bytes of stdin that are read at a time, so that one read makes one frame.
pub(crate) const INPUT_PIECE: usize = frame::MAX_DATA;

#[cfg(test)]
mod tests;
