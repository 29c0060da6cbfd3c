// SPDX-License-Identifier: Apache-2.0
//! Starting the container: the agent's side.
//!
//! Without an init the first process is made in the agent's memory, which sleeps until the program runs: a failure is a
//! value, not a message. With one it must live on as a copy, and tells over a channel. A terminal comes over the channel
//! in both cases, because descriptors are not shared.
//!
//! ```text
//!   channel (SEQPACKET):  child ── [] + terminal ──►   child ── [RUNS, µs] or [failure kind, µs, text] ──► agent   then EOF
//! ```

use crate::Machine;
use crate::child::{self, Pipes, Plan};
use crate::credentials;
use crate::failure::{Doing, Failure};
use crate::freezer::set_clock;
use crate::init::Init;
use crate::streams::{Input, Output};
use isopod_protocol::StreamId;
use isopod_protocol::message::{Container, FailedKind, Started};
use isopod_sys::fdpass;
use isopod_sys::process::machine::loopback_up;
use isopod_sys::process::{Child, Namespaces, OneThread};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use std::mem::forget;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

/// The container's first process and its streams, as the agent has them.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) input: Input,
    pub(crate) outputs: Vec<Output>,
    pub(crate) terminal: Option<Rc<OwnedFd>>,
    /// Held so that they are never taken apart: the machine ends before.
    pub(crate) _mounts: Option<OwnedFd>,
}

const RUNS: u8 = 0xff;

/// Makes the machine ready and starts the container's process.
pub(crate) fn start(
    container: &Container,
    machine: &Machine,
    link: BorrowedFd<'_>,
    one: &mut OneThread,
) -> Result<(Process, Started), Failure> {
    let arrived = Instant::now();
    set_clock(container.realtime_ns).doing("set", "the clock")?;
    raise_loopback(link).doing("bring up", "the loopback")?;
    let (pipes, input, outputs) = streams(container).doing("make", "pipes")?;
    let has_channel = container.terminal.is_some() || container.init;
    let channel = has_channel.then(channel).transpose().doing("make", "a socket")?;
    let (ours, theirs) = channel.unzip();
    let plan = Plan { container, machine, pipes: pipes.as_ref(), channel: theirs.as_ref().map(AsFd::as_fd) };
    let (child, mut begun) =
        if container.init { copied(plan, arrived, one) } else { shared(plan, arrived, one) }?;
    drop(theirs);
    if let Some(channel) = ours {
        begun.listen(&channel)?;
    }
    if let Some(failure) = begun.failure {
        return Err(failure);
    }
    if let Some(pipes) = pipes {
        // Ours of the process's ends. Input must learn when nobody reads; of output the process's end tells enough.
        drop(pipes.stdin);
        forget((pipes.stdout, pipes.stderr));
    }
    let terminal = begun.terminal.map(Rc::new);
    let (input, outputs) = match &terminal {
        Some(master) => (Input::terminal(Rc::clone(master)), vec![Output::terminal(Rc::clone(master))]),
        None => (input, outputs),
    };
    let started = Started { mounts_us: begun.mounted_us, started_us: micros_since(arrived) };
    let mounts = child.mounts().ok();
    Ok((Process { child, input, outputs, terminal, _mounts: mounts }, started))
}

/// What became of the child.
#[derive(Debug, Default)]
struct Begun {
    /// Since Start arrived.
    mounted_us: u64,
    failure: Option<Failure>,
    terminal: Option<OwnedFd>,
}

impl Begun {
    /// Hears the child out, until it executes or ends.
    fn listen(&mut self, channel: &OwnedFd) -> Result<(), Failure> {
        let mut buf = [0; 2048];
        loop {
            let (len, mut fds) =
                fdpass::receive(channel.as_fd(), &mut buf).doing("hear", "the container's process")?;
            if let Some(terminal) = fds.pop() {
                self.terminal = Some(terminal);
                continue;
            }
            let Some((&[kind, ref time @ ..], text)) = buf[..len].split_first_chunk::<9>() else {
                return Ok(());
            };
            self.mounted_us = u64::from_le_bytes(*time);
            if kind != RUNS {
                let kind = FailedKind::try_from(i32::from(kind)).unwrap_or(FailedKind::Setup);
                self.failure = Some(Failure::new(kind, String::from_utf8_lossy(text).into_owned()));
            }
        }
    }
}

fn all_own() -> Namespaces {
    Namespaces::MOUNT | Namespaces::PID | Namespaces::IPC | Namespaces::UTS | Namespaces::CGROUP
}

/// The process is made in this one's memory.
fn shared(plan: Plan<'_>, arrived: Instant, one: &mut OneThread) -> Result<(Child, Begun), Failure> {
    let mut mounted_us = 0;
    let mut begin = || {
        let slave = child::lay_root(plan)?;
        mounted_us = micros_since(arrived);
        let settled = child::settle(plan, slave)?;
        child::give_streams(plan, &settled)?;
        child::take_streams(plan, &settled)?;
        credentials::confine(plan.container, &settled.identity)?;
        Ok(child::become_program(plan, &settled))
    };
    let begin = || begin().unwrap_or_else(|failure| failure);
    let (child, failure) = one.spawn_shared(all_own(), begin).doing("make", "a process")?;
    Ok((child, Begun { mounted_us, failure, terminal: None }))
}

/// The process is this one's copy and stays, as the container's init.
fn copied(plan: Plan<'_>, arrived: Instant, one: &mut OneThread) -> Result<(Child, Begun), Failure> {
    let child = one.fork(all_own(), |one| {
        let mut mounted_us = 0;
        let begin = || {
            let slave = child::lay_root(plan)?;
            mounted_us = micros_since(arrived);
            let settled = child::settle(plan, slave)?;
            Init::start(plan, &settled, one)
        };
        let begun = begin();
        let (kind, text) = match &begun {
            Ok(_) => (RUNS, ""),
            Err(failure) => (u8::try_from(i32::from(failure.kind)).unwrap_or(0), failure.message.as_str()),
        };
        let message = [&[kind], mounted_us.to_le_bytes().as_slice(), text.as_bytes()].concat();
        let told = plan.channel.map(|channel| fdpass::send(channel, &message, &[]));
        match (begun, told) {
            (Ok(init), Some(Ok(()))) => init.watch(),
            _ => 1,
        }
    });
    Ok((child.doing("make", "a process")?, Begun::default()))
}

fn channel() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// The pipes, and the agent's ends of them.
fn streams(container: &Container) -> Result<(Option<Pipes>, Input, Vec<Output>), Errno> {
    if container.terminal.is_some() {
        return Ok((None, Input::none(), Vec::new()));
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (stdin, input) = match container.stdin.then(pipe).transpose()? {
        Some((reads, writes)) => (Some(reads), Input::pipe(writes)),
        None => (None, Input::none()),
    };
    let (reads_out, stdout) = pipe()?;
    let (reads_err, stderr) = pipe()?;
    let outputs = vec![Output::pipe(StreamId::STDOUT, reads_out), Output::pipe(StreamId::STDERR, reads_err)];
    Ok((Some(Pipes { stdin, stdout, stderr }), input, outputs))
}

/// Asks by the socket that there is; one of a family that passes no such request on is not the only kind.
pub(crate) fn raise_loopback(link: BorrowedFd<'_>) -> Result<(), Errno> {
    let asked = |socket: BorrowedFd<'_>| match loopback_up(socket) {
        Ok(()) => Ok(()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    };
    match asked(link) {
        Err(Errno::NODEV) => Ok(()),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL) => {
            asked(socket(AddressFamily::INET, SocketType::DGRAM, None)?.as_fd())
        }
        answer => answer,
    }
}

pub(crate) fn micros_since(then: Instant) -> u64 {
    u64::try_from(then.elapsed().as_micros()).unwrap_or(u64::MAX)
}
