// SPDX-License-Identifier: Apache-2.0
//! A foreground container's one loop: the agent, the machine, our own streams, signals and deadlines.
//!
//! ```text
//!             stdin ──window──► ┌──────┐ ──frames──► agent (in the guest)
//!   stdout, stderr ◄──window─── │ loop │ ◄─frames───
//!        signals ─────────────► └──────┘ ◄─events─── machine's process
//! ```
//!
//! Nothing here waits for the guest without a deadline, and nothing of the guest's is held beyond its window.

mod begin;
mod pass;
pub(crate) mod still;
mod wait;

use crate::agent::{Conversation, Heard, INPUT_PIECE, Misbehaviour, Output, Phase, ProcessEnd, Stillness};
use crate::container::control::Control;
use crate::machine::{LAST_WORDS, Refusal, Watched};
use crate::signals::{self, Insistence, SignalFd};
use crate::sink::Sink;
use crate::template::Learns;
use crate::terminal::{self, Raw, Streams};
use crate::timings::{Mark, Timings};
use isopod_protocol::frame::{MAX_MESSAGE, put_from_host};
use isopod_protocol::message::{Container, FailedKind, WindowSize};
use isopod_protocol::{Decoder, FromHost};
use isopod_vmm::{Counters, End, Event};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};
use std::collections::VecDeque;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use still::{Saving, Standing, Told};
use wait::{Ready, Who};

/// More signals than this are not taken while none is answered.
const MAX_UNANSWERED: usize = 32;
/// More than a Start, a piece of input and the grants for gigabytes of output that wait to be sent at once.
const MAX_UNSENT: usize = MAX_MESSAGE + INPUT_PIECE + 64 * 1024;
/// Most reads of the agent's stream at a time; more than its windows hold.
const PIECES: usize = 16;

/// How long the guest may take to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// To say hello; and then to start the process.
    pub(crate) start: Duration,
    /// To take a signal.
    pub(crate) signal: Duration,
}

/// How it ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Ending {
    Exited(ProcessEnd),
    NotStarted {
        kind: FailedKind,
        message: String,
    },
    /// The machine ended before the agent had said how the process did.
    Machine {
        end: End,
        phase: Phase,
    },
    Misbehaved(Misbehaviour),
    Silent {
        waiting: Waiting,
        limit: Duration,
    },
    /// A signal to us, before there was a process to pass it to.
    Interrupted(i32),
    /// Signal after signal to us, which the process does not heed.
    Insisted,
    HungUp {
        phase: Phase,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    Hello,
    Started,
    Signal,
    /// To stand still, or to go on.
    Still,
}

/// Where stdin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Not before the process is there.
    Early,
    Open,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Session<'a> {
    agent: OwnedFd,
    streams: Streams<'a>,
    signals: &'a SignalFd,
    container: Container,
    limits: Limits,
    timings: &'a mut Timings,

    conversation: Conversation,
    decoder: Decoder,
    to_agent: Vec<u8>,
    sent: usize,
    sinks: [Sink<'a>; 2],
    input: Input,
    raw: Option<Raw>,
    /// When the phase began.
    since: Instant,
    /// When the signals that are unanswered were sent.
    signalled: VecDeque<Instant>,
    insistence: Insistence,
    hung_up: Option<Instant>,
    /// Where the agent waits when it is told to freeze.
    mailbox: u64,
    /// Where others ask for something.
    control: Option<Control>,
    saving: Option<Saving>,
    standing: Standing,
    /// Where to write down what this start touched of its template.
    learns: Option<Learns>,
    /// What others are to be told of.
    told: Vec<Told>,
}

/// What a session is made of, besides what it makes itself.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    /// Our end of the agent's stream.
    pub(crate) agent: OwnedFd,
    pub(crate) streams: Streams<'a>,
    pub(crate) signals: &'a SignalFd,
    pub(crate) container: Container,
    pub(crate) limits: Limits,
    pub(crate) timings: &'a mut Timings,
    /// Where others ask for something.
    pub(crate) control: Option<Control>,
}

impl<'a> Session<'a> {
    /// `terminal` is the container's, whose size is filled in when it is started.
    pub(crate) fn new(parts: Parts<'a>, terminal: bool) -> Self {
        let Parts { agent, streams, signals, container, limits, timings, control } = parts;
        Self {
            agent,
            streams,
            signals,
            limits,
            timings,
            input: if container.stdin { Input::Early } else { Input::Closed },
            container: Container { terminal: terminal.then_some(terminal::size(&[])), ..container },
            conversation: Conversation::new(terminal),
            decoder: Decoder::default(),
            to_agent: Vec::new(),
            sent: 0,
            sinks: [Sink::new(streams.stdout), Sink::new(streams.stderr)],
            raw: None,
            since: Instant::now(),
            signalled: VecDeque::new(),
            insistence: Insistence::default(),
            hung_up: None,
            mailbox: 0,
            control,
            saving: None,
            standing: Standing::Going,
            learns: None,
            told: Vec::new(),
        }
    }

    /// From here on the container can be saved.
    pub(crate) fn can_be_saved(&mut self, saving: Saving) {
        self.saving = Some(saving);
    }

    pub(crate) fn learns(&self) -> bool {
        self.learns.is_some()
    }

    /// Nobody knows yet what a start from this template touches: this one finds out.
    pub(crate) fn learn(&mut self, learns: Learns) {
        self.learns = Some(learns);
    }

    /// Serves everybody until it is known how the container ended. `tell` hears of what others want to know.
    pub(crate) fn serve(&mut self, machine: &mut dyn Watched, tell: &mut dyn FnMut(Told)) -> Ending {
        loop {
            let ready = self.wait(machine);
            let step = self.step(ready, machine);
            self.told.drain(..).for_each(&mut *tell);
            if let Some(ending) = step.or_else(|| self.overdue()) {
                return ending;
            }
        }
    }

    /// Passes on what the process wrote and nobody has taken yet; a signal breaks it off.
    pub(crate) fn flush(&mut self) {
        while !self.sinks.iter().all(Sink::is_empty) {
            let mut fds = vec![PollFd::new(self.signals, PollFlags::IN)];
            let waiting: Vec<usize> = (0..2).filter(|n| !self.sinks[*n].is_empty()).collect();
            fds.extend(waiting.iter().map(|n| PollFd::new(&self.sinks[*n], PollFlags::OUT)));
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[0] && self.signals.read().is_ok_and(|s| s.is_some_and(signals::ends)) {
                return;
            }
            for (n, _) in waiting.iter().zip(&ready[1..]).filter(|(_, ready)| **ready) {
                self.sinks[*n].write();
            }
        }
    }

    /// What KVM counted, for the table.
    pub(crate) fn counted(&mut self, counters: Counters) {
        self.timings.counters(counters);
    }

    /// The machine is gone.
    pub(crate) fn torn_down(&mut self) {
        self.timings.mark(Mark::TornDown);
    }

    fn step(&mut self, ready: Ready, machine: &mut dyn Watched) -> Option<Ending> {
        if ready.has(Who::Signals)
            && let Some(ending) = self.take_signals()
        {
            return Some(ending);
        }
        let booting = self.conversation.phase() == Phase::Booting;
        let heard = if ready.has(Who::Agent) { self.hear_agent() } else { None };
        let begun = self.timings.reached(Mark::FirstByte) || matches!(heard, Some(Ending::Exited(_)));
        if let Some(learns) = self.learns.take_if(|_| begun)
            && let Err(Refusal::Ended(end)) = learns.from(machine)
        {
            return Some(heard.unwrap_or(Ending::Machine { end, phase: self.conversation.phase() }));
        }
        if heard.is_some() {
            return heard;
        }
        if let Some(ending) = self.go_on_with_snapshot(machine) {
            return Some(ending);
        }
        if ready.has(Who::Control)
            && let Some(ending) = self.take_wish(machine)
        {
            return Some(ending);
        }
        if booting && self.conversation.phase() != Phase::Booting {
            machine.count();
        }
        for output in [Output::Stdout, Output::Stderr] {
            if ready.has(Who::of(output)) {
                self.write_output(output);
            }
        }
        // What is read after a Freeze would have to wait behind it, and its end would be lost to a copy.
        if ready.has(Who::Stdin) && self.standing.barrier().is_none() {
            self.read_input();
        }
        self.talk();
        if self.to_agent.len() > MAX_UNSENT {
            return Some(Ending::Misbehaved(Misbehaviour::Deaf));
        }
        if ready.has(Who::Machine) { self.machine_event(machine.event()) } else { None }
    }

    /// The nearest time by which something must have happened.
    fn deadline(&self) -> Option<(Instant, Waiting, Duration)> {
        let Limits { start, signal } = self.limits;
        if let Some(at) = self.hung_up {
            return Some((at + LAST_WORDS, Waiting::Hello, LAST_WORDS));
        }
        match (&self.standing, self.conversation.phase()) {
            (Standing::Paused, _) => None,
            (Standing::Saving(snapshot), _) => Some((snapshot.since + signal, Waiting::Still, signal)),
            (_, Phase::Up) if self.conversation.stillness() == Stillness::Thawing => {
                Some((self.since + start, Waiting::Still, start))
            }
            (_, Phase::Booting | Phase::Greeted) => Some((self.since + start, Waiting::Hello, start)),
            (_, Phase::Asked) => Some((self.since + start, Waiting::Started, start)),
            _ => self.signalled.front().map(|at| (*at + signal, Waiting::Signal, signal)),
        }
    }

    fn overdue(&self) -> Option<Ending> {
        let (_, waiting, limit) = self.deadline().filter(|(at, ..)| *at <= Instant::now())?;
        match self.hung_up {
            Some(_) => Some(Ending::HungUp { phase: self.conversation.phase() }),
            None => Some(Ending::Silent { waiting, limit }),
        }
    }

    fn take_signals(&mut self) -> Option<Ending> {
        while self.conversation.unanswered() < MAX_UNANSWERED {
            let Ok(Some(signal)) = self.signals.read() else {
                return None;
            };
            if signal == signals::SIGWINCH {
                self.resize();
            } else if self.conversation.phase() == Phase::Up {
                if self.insistence.grows(signal, Instant::now()) {
                    return Some(Ending::Insisted);
                }
                // A signal is a dozen bytes, far below what a message may have.
                let _ = put_from_host(&mut self.to_agent, &FromHost::signal(signal));
                self.conversation.signal_sent();
                self.signalled.push_back(Instant::now());
            } else if signals::ends(signal) {
                return Some(Ending::Interrupted(signal));
            }
        }
        None
    }

    fn resize(&mut self) {
        if self.container.terminal.is_some() && self.conversation.phase() == Phase::Up {
            let size = self.terminal_size();
            let _ = put_from_host(&mut self.to_agent, &FromHost::resize(size));
        }
    }

    fn terminal_size(&self) -> WindowSize {
        terminal::size(&[self.streams.stdout, self.streams.stdin])
    }

    fn machine_event(&mut self, event: Event) -> Option<Ending> {
        match event {
            Event::Running(marks) => self.timings.machine(&marks),
            Event::Counters(counters) => self.timings.counters_at_hello(counters),
            // Nobody has asked for one: whatever it says, it does not change what we know.
            Event::Paused | Event::Saved | Event::Touched | Event::Resumed | Event::Refused { .. } => {}
            Event::Ended(end) => {
                // The last the agent said may still be on its way to us.
                let heard = self.hear_agent();
                return Some(heard.unwrap_or(Ending::Machine { end, phase: self.conversation.phase() }));
            }
        }
        None
    }

    /// Reads what there is and answers it, but not for ever: an agent that never pauses must not keep others waiting.
    fn hear_agent(&mut self) -> Option<Ending> {
        for _ in 0..PIECES {
            match retry_on_intr(|| recv(&self.agent, self.decoder.space(), RecvFlags::DONTWAIT)) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => {
                    self.hung_up.get_or_insert_with(Instant::now);
                    return None;
                }
                Ok((_, n)) => self.decoder.advance(n),
                Err(_) => return None,
            }
            let mut decoder = mem::take(&mut self.decoder);
            let ending = self.frames(&mut decoder);
            self.decoder = decoder;
            match ending {
                Ok(None) => {}
                Ok(ending) => return ending,
                Err(misbehaviour) => return Some(Ending::Misbehaved(misbehaviour)),
            }
        }
        None
    }

    fn frames(&mut self, decoder: &mut Decoder) -> Result<Option<Ending>, Misbehaviour> {
        while let Some(frame) = decoder.next_frame()? {
            match self.conversation.hear(frame)? {
                Heard::Hello(greeting) => {
                    self.timings.mark(Mark::Hello);
                    self.greeted(greeting);
                    self.start();
                }
                Heard::Started(started) => {
                    self.timings.started(started.mounts_us, started.started_us);
                    self.started();
                }
                Heard::Failed { kind, message } => return Ok(Some(Ending::NotStarted { kind, message })),
                Heard::Answer => {
                    self.signalled.pop_front();
                }
                Heard::Exited(end) => {
                    self.timings.mark(Mark::Exited);
                    return Ok(Some(Ending::Exited(end)));
                }
                Heard::Output(output, bytes) => self.take_output(output, bytes),
                Heard::InputEnd => self.input = Input::Closed,
                Heard::Thawed if !self.standing.is_saving() => {
                    self.timings.mark(Mark::ProcessStarted);
                    self.started();
                }
                Heard::OutputEnd(_) | Heard::InputRoom | Heard::Frozen | Heard::Thawed => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
