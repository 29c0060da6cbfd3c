// SPDX-License-Identifier: Apache-2.0
//! The loop: what the host says, what the process writes, and its end.

use crate::Machine;
use crate::failure::Failure;
use crate::freezer::{Freezer, renew};
use crate::life::{Happening, State};
use crate::link::Link;
use crate::machine::{make_present, report};
use crate::prepared::Prepared;
use crate::start::{Process, start};
use crate::terminal;
use isopod_protocol::frame::put_eof;
use isopod_protocol::message::{
    Ack, AgentSays, Container, Exited, FromHost, Frozen, Hello, HostSays, Thawed,
};
use isopod_protocol::window::SendWindow;
use isopod_protocol::{Frame, FrameError, StreamId, VERSION};
use isopod_sys::mailbox::Mailbox;
use isopod_sys::process::{OneThread, kill};
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use rustix::system::uname;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Why the agent gave up. The host is not told over the line, which is no longer to be trusted.
#[derive(Debug)]
pub enum Broken {
    Connect(io::Error),
    Line(Errno),
    Frame(FrameError),
    /// A frame that no host would send now.
    Protocol(&'static str),
    Wait(Errno),
    /// What stood by would not go away.
    Prepared(io::Error),
    /// The machine may be a copy, and could not be made another one.
    Renew(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect to the host: {error}"),
            Self::Line(error) => write!(f, "the line to the host broke: {error}"),
            Self::Frame(error) => write!(f, "the host sent {error}"),
            Self::Protocol(what) => write!(f, "the host broke the protocol: {what}"),
            Self::Renew(failure) => write!(f, "cannot go on as another machine: {failure}"),
            Self::Prepared(error) => write!(f, "cannot get rid of what was prepared: {error}"),
            Self::Wait(error) => write!(f, "cannot wait for the container's process: {error}"),
        }
    }
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// Serves the host at the other end of `socket` until it hangs up.
pub fn run(socket: OwnedFd, machine: &Machine, one: OneThread) -> Result<(), Broken> {
    let mut agent = Agent {
        machine,
        one,
        link: Link::new(socket),
        state: State::Connected,
        process: None,
        unheard: false,
        mailbox: Mailbox::take().ok_or(Broken::Protocol("a second agent"))?,
        freezer: None,
        prepared: None,
    };
    agent.greet();
    agent.flush()?;
    // There is nothing else to wait for, so no poll is needed.
    while agent.state == State::Connected {
        if !agent.link.receive(RecvFlags::empty()).map_err(Broken::Line)? {
            return Ok(());
        }
        agent.listen()?;
    }
    agent.flush()?;
    while agent.turn()? {}
    Ok(())
}

struct Agent<'a> {
    machine: &'a Machine,
    one: OneThread,
    link: Link,
    state: State,
    process: Option<Process>,
    /// Frames that have come are waiting for room for their answers.
    unheard: bool,
    mailbox: Mailbox,
    /// There from Prepare on; otherwise the container cannot be frozen.
    freezer: Option<Result<Freezer, Failure>>,
    prepared: Option<Prepared>,
}

/// What `poll` has found.
struct Ready {
    link: bool,
    ended: bool,
    input: PollFlags,
    /// By stream number.
    outputs: [bool; 3],
}

impl Agent<'_> {
    fn greet(&mut self) {
        let kernel = uname().release().to_string_lossy().into_owned();
        let agent = env!("CARGO_PKG_VERSION").to_owned();
        let mailbox = self.mailbox.address();
        self.link.out.say(AgentSays::Hello(Hello { version: VERSION, agent, kernel, mailbox }));
    }

    /// The machine may be frozen here, and go on in another life: with what the host has put into the mailbox, as if
    /// it had come over the line.
    fn wait_at_mailbox(&mut self) {
        make_present();
        let bytes = self.mailbox.wait();
        let space = self.link.decoder.space();
        let n = bytes.len().min(space.len());
        space[..n].copy_from_slice(&bytes[..n]);
        self.link.decoder.advance(n);
    }

    /// Waits for something and deals with it; false if the host has hung up.
    fn turn(&mut self) -> Result<bool, Broken> {
        let ready = self.wait()?;
        if ready.link && !self.link.receive(RecvFlags::DONTWAIT).map_err(Broken::Line)? {
            return Ok(false);
        }
        if !self.link.out.is_empty() {
            self.flush()?;
        }
        self.listen()?;
        if let Some(process) = &mut self.process {
            if ready.input.intersects(PollFlags::ERR) {
                process.input.refuse(&mut self.link.out);
            } else if !ready.input.is_empty() {
                process.input.go_on(&mut self.link.out);
            }
        }
        if ready.ended {
            self.happen(Happening::ProcessEnded)?;
            if let Some(process) = &mut self.process {
                process.input.abandon(&mut self.link.out);
            }
        }
        self.pump(&ready);
        if self.state == State::Draining {
            self.finish()?;
        }
        self.flush()?;
        Ok(true)
    }

    fn wait(&self) -> Result<Ready, Broken> {
        let mut fds = Vec::with_capacity(5);
        let mut line = PollFlags::empty();
        line.set(PollFlags::IN, self.link.out.takes_messages());
        line.set(PollFlags::OUT, !self.link.out.is_empty());
        fds.push((Watch::Link, PollFd::new(&self.link, line)));
        if let Some(process) = &self.process {
            if self.state == State::Running {
                fds.push((Watch::Process, PollFd::new(&process.child.pidfd, PollFlags::IN)));
                if let Some((fd, for_room)) = process.input.watched() {
                    let what = if for_room { PollFlags::OUT } else { PollFlags::empty() };
                    fds.push((Watch::Input, PollFd::from_borrowed_fd(fd, what)));
                }
            }
            let room = self.link.out.is_nearly_empty();
            for output in process.outputs.iter().filter(|output| output.wants() && room) {
                let fd = output.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
                fds.extend(fd.map(|fd| (Watch::Output(output.id), fd)));
            }
        }
        let (watches, mut fds): (Vec<_>, Vec<_>) = fds.into_iter().unzip();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, self.has_work().then_some(&at_once)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Broken::Wait(error)),
        }
        let mut ready = Ready { link: false, ended: false, input: PollFlags::empty(), outputs: [false; 3] };
        for (watch, found) in watches.iter().zip(fds.iter().map(PollFd::revents)) {
            match watch {
                Watch::Link => ready.link = found.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
                Watch::Process => ready.ended = !found.is_empty(),
                Watch::Input => ready.input = found,
                Watch::Output(stream) => ready.outputs[usize::from(stream.0)] = !found.is_empty(),
            }
        }
        Ok(ready)
    }

    /// Whether there is something to do that no descriptor tells of. In particular a pipe of a process that is gone never
    /// tells its end: this process has its other end, too.
    fn has_work(&self) -> bool {
        let outputs = self.process.as_ref().map(|process| process.outputs.as_slice()).unwrap_or_default();
        let drains = self.state == State::Draining && self.link.out.is_nearly_empty();
        self.unheard && self.link.out.takes_messages()
            || drains && outputs.iter().any(|output| output.is_pipe() && output.wants())
    }

    fn flush(&mut self) -> Result<(), Broken> {
        let promised = self.link.out.promised();
        let outputs = self.process.as_ref().map(|process| process.outputs.as_slice()).unwrap_or_default();
        let pipe = outputs.iter().find(|output| Some(output.id) == promised).and_then(|output| output.fd());
        self.link.flush(pipe).map_err(Broken::Line)
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        self.state = self.state.after(happening).ok_or(Broken::Protocol("a message out of turn"))?;
        Ok(())
    }

    /// Deals with the frames that have come, as long as there is room for answers.
    fn listen(&mut self) -> Result<(), Broken> {
        self.unheard = true;
        while self.link.out.takes_messages() {
            let Some(frame) = self.link.decoder.next_frame()? else {
                self.unheard = false;
                break;
            };
            if let Frame::Message(bytes) = frame {
                let message =
                    FromHost::decode(bytes).map_err(|_| Broken::Protocol("a message that is none"))?;
                self.obey(message.says.ok_or(Broken::Protocol("a message of an unknown kind"))?)?;
                continue;
            }
            if !self.state.has_container() {
                return Err(Broken::Protocol("a stream before there was a container"));
            }
            // A container that did not start has no streams, but its host may not know yet.
            let Some(process) = &mut self.process else {
                continue;
            };
            let lie = |_| Broken::Protocol("a stream overran its window");
            match frame {
                Frame::Data(StreamId::STDIN, bytes) => {
                    process.input.data(bytes, &mut self.link.out).map_err(lie)?;
                }
                Frame::Eof(StreamId::STDIN) => process.input.end(),
                Frame::Eof(stream) => {
                    let output = process.outputs.iter_mut().find(|output| output.id == stream);
                    output.ok_or(Broken::Protocol("the end of a stream that is none"))?.refuse();
                }
                Frame::Window(stream, more) => {
                    let output = process.outputs.iter_mut().find(|output| output.id == stream);
                    output
                        .ok_or(Broken::Protocol("room for a stream that is none"))?
                        .window
                        .grant(more)
                        .map_err(lie)?;
                }
                _ => {
                    return Err(Broken::Protocol("data of a stream that is not the host's to write"));
                }
            }
        }
        Ok(())
    }

    fn obey(&mut self, says: HostSays) -> Result<(), Broken> {
        match says {
            HostSays::Prepare(likely) => return self.prepare(*likely),
            HostSays::Start(container) => return self.start(container),
            _ if !self.state.has_container() => {
                return Err(Broken::Protocol("a message before there was a container"));
            }
            HostSays::Signal(signal) => {
                if let (State::Running, Some(process)) = (self.state, &self.process) {
                    // Nobody left to take it, or no signal: there is nothing to be done about either.
                    let _ = kill(process.child.pid, signal.number);
                }
                self.link.out.say(AgentSays::Ack(Ack {}));
            }
            HostSays::Freeze(_) => return self.freeze(),
            HostSays::Thaw(thaw) => {
                let process = self.process.as_mut().ok_or(Broken::Protocol("a thaw of nothing"))?;
                if thaw.copy {
                    process.input.start_anew();
                    process.outputs.iter_mut().for_each(|output| output.window = SendWindow::default());
                }
                // Who cannot be made anew must not go on as a copy.
                renew(&thaw, &process.child).map_err(|failure| Broken::Renew(failure.message))?;
                match &self.freezer {
                    Some(Ok(freezer)) => freezer.thaw().map_err(|failure| Broken::Renew(failure.message))?,
                    _ => return Err(Broken::Protocol("a thaw without a freeze")),
                }
                self.link.out.say(AgentSays::Thawed(Thawed {}));
            }
            HostSays::Resize(size) => {
                if let Some(master) = self.process.as_ref().and_then(|process| process.terminal.as_ref()) {
                    let _ = terminal::resize(master.as_fd(), size);
                }
            }
        }
        Ok(())
    }

    /// One that has just ended would be missed in every copy.
    fn process_lives(&self) -> bool {
        let Some(process) = &self.process else { return false };
        let mut fds = [PollFd::new(&process.child.pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.state == State::Running && poll(&mut fds, Some(&at_once)) == Ok(0)
    }

    /// Stops the container's processes and waits for who they are to be. Afterwards everything is as it was, unless
    /// the host has said Thaw.
    fn freeze(&mut self) -> Result<(), Broken> {
        let frozen = match &self.freezer {
            _ if !self.process_lives() => Err("its process has ended".to_owned()),
            Some(Ok(freezer)) => freezer.freeze().map_err(|failure| failure.message),
            Some(Err(failure)) => Err(failure.message.clone()),
            None => Err("the machine was not started from a template".to_owned()),
        };
        let failure = frozen.err().unwrap_or_default();
        let stands_still = failure.is_empty();
        let input_kept = self.process.as_ref().map_or(0, |process| process.input.kept());
        self.link.out.say(AgentSays::Frozen(Frozen { failure, input_kept }));
        if stands_still {
            // The machine will be stopped and perhaps copied: nothing may be under way.
            while !self.link.out.is_empty() {
                self.flush()?;
                self.wait()?;
            }
            self.wait_at_mailbox();
        }
        Ok(())
    }

    /// Does what can be done before it is known who is to be started.
    fn prepare(&mut self, likely: Container) -> Result<(), Broken> {
        if self.state != State::Connected || self.freezer.is_some() {
            return Err(Broken::Protocol("a preparation out of turn"));
        }
        self.freezer = Some(Freezer::prepare());
        match Prepared::make(likely, self.machine, self.link.as_fd(), &mut self.one) {
            Ok(prepared) => self.prepared = Some(prepared),
            // Then it will be done later, and if it fails again the host is told.
            Err(failure) => report(&failure.message),
        }
        self.wait_at_mailbox();
        Ok(())
    }

    fn start(&mut self, container: Box<Container>) -> Result<(), Broken> {
        self.happen(Happening::Start)?;
        let begun = match self.prepared.take() {
            Some(prepared) if prepared.suits(&container) => prepared.go(container),
            prepared => {
                prepared.map_or(Ok(()), Prepared::dismiss).map_err(Broken::Prepared)?;
                start(&container, self.machine, self.link.as_fd(), &mut self.one)
            }
        };
        match begun {
            Ok((process, started)) => {
                self.process = Some(process);
                self.link.out.say(AgentSays::Started(started));
                self.happen(Happening::ProcessRuns)
            }
            Err(failure) => {
                self.link.out.say(failure.into());
                self.happen(Happening::StartFailed)
            }
        }
    }

    /// Takes a piece of each stream that has one.
    fn pump(&mut self, ready: &Ready) {
        let draining = self.state == State::Draining;
        let Some(process) = &mut self.process else { return };
        for output in &mut process.outputs {
            output.let_go(self.link.out.promised());
            let has = draining || ready.outputs[usize::from(output.id.0)];
            if has && output.wants() && self.link.out.takes_data() {
                output.pump(&mut self.link.out, draining);
            }
        }
    }

    /// Says how the process ended, once everything it wrote is on its way.
    fn finish(&mut self) -> Result<(), Broken> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        if self.link.out.promised().is_some() || !process.outputs.iter().all(|output| output.has_ended()) {
            return Ok(());
        }
        let status = look_back(process)?;
        let (code, signal) = (status.exit_status(), status.terminating_signal());
        let may_be_memory = signal == Some(9) || code == Some(137);
        let out_of_memory = may_be_memory && (self.machine.killed_for_memory)();
        for output in &process.outputs {
            self.link.out.put(|buf| put_eof(buf, output.id));
        }
        self.link.out.say(AgentSays::Exited(Exited { code, signal, out_of_memory }));
        self.happen(Happening::StreamsEnded)
    }
}

enum Watch {
    Link,
    Process,
    Input,
    Output(StreamId),
}

/// How the container's process ended. It stays a zombie, as others who were given to this process do; the machine ends
/// with them.
fn look_back(process: &Process) -> Result<WaitIdStatus, Broken> {
    let left_there = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::PidFd(process.child.pidfd.as_fd()), left_there).map_err(Broken::Wait)?;
    status.ok_or(Broken::Wait(Errno::CHILD))
}
