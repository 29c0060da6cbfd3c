// SPDX-License-Identifier: Apache-2.0
//! The machine's process: receives what it is to be, becomes it, and ends with the guest or with the engine.
//!
//! ```text
//!   Waiting ──config, descriptors──► Assembling ──Running──► Running ──Ended──► gone
//!      │                                 └──────────Ended(Failed)──────────────► gone
//!      └──── the engine's end closes, at any point, or the engine dies ────────► gone
//! ```
//!
//! "Gone" is the process's exit: the kernel takes back memory, vCPUs and descriptors, and nothing here can forget one.

use crate::assemble::{self, Assembled, Descriptors, ShareFiles};
use crate::boot::symbols;
use crate::config::MachineConfig;
use crate::vcpu;
use crate::wire::{Counters, End, Event, MAX_MESSAGE, Marks, Request};
use isopod_sys::fdpass;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, write};
use rustix::process::{Signal, set_parent_process_death_signal, setsid};
use rustix::thread::set_name;
use rustix::time::{ClockId, clock_gettime};
use std::error::Error;
use std::ffi::CStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// What `client` calls this process, and how `main` knows that it is one.
pub const NAME: &CStr = c"isopod-vmm";

/// The whole life of a machine's process. Its standard input is the socket to the engine. All signals stay blocked, as
/// `client::start` left them: its end is the engine's to ask for, and SIGKILL needs no leave.
pub fn main() -> ExitCode {
    let started = now();
    // Otherwise it would be called after the link it was executed by.
    let _ = set_name(NAME);
    // If the engine is already gone the socket tells so; this is for the time after.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // A terminal's Ctrl-C is for the container; its own session is where none arrives.
    let _ = setsid();
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let Ok(Some((config, fds))) = receive(socket.as_fd()) else {
        return ExitCode::FAILURE;
    };
    let marks = Marks { process: started, config: now(), ..Marks::default() };
    let end = match assemble::assemble(&config, fds) {
        Ok(machine) => run(machine, marks, socket.as_fd()),
        Err(e) => Some(End::Failed { message: chain(&e) }),
    };
    if let Some(end) = end {
        let _ = send(socket.as_fd(), &Event::Ended(end));
    }
    ExitCode::SUCCESS
}

/// Starts the vCPUs and serves the engine; `None` if the engine went away.
fn run(machine: Assembled, mut marks: Marks, socket: BorrowedFd<'_>) -> Option<End> {
    marks.assembled = now();
    // The memory goes last: bindings drop in reverse.
    let Assembled { around, stats, image_counters, kernel, vm: _vm, vcpus } = machine;
    let (ends, first_end) = mpsc::sync_channel(vcpus.len());
    let bell = match eventfd(0, EventfdFlags::CLOEXEC) {
        Ok(bell) => bell,
        Err(e) => {
            return Some(End::Failed { message: format!("cannot make an eventfd: {e}") });
        }
    };
    marks.first_run = now();
    if send(socket, &Event::Running(marks)).is_err() {
        return None;
    }
    for (id, mut vcpu) in vcpus.into_iter().enumerate() {
        let (around, ends) = (around.clone(), ends.clone());
        let Ok(bell) = bell.try_clone() else {
            return Some(End::Failed { message: "too many descriptors".into() });
        };
        let spawned = thread::Builder::new().name(format!("vcpu{id}")).spawn(move || {
            let end = vcpu::run(&mut vcpu, &around);
            let _ = ends.send(end);
            let _ = write(&bell, &1u64.to_ne_bytes());
        });
        if let Err(e) = spawned {
            return Some(End::Failed { message: format!("cannot start a vCPU's thread: {e}") });
        }
    }
    let count = || {
        let mut counters = Counters::default();
        stats.iter().for_each(|s| s.add_to(&mut counters));
        counters.image_requests = image_counters.snapshot().requests.iter().map(|(_, count)| count).sum();
        counters
    };
    serve(socket, &bell, &first_end, count).map(|end| with_symbol(end, &kernel))
}

/// Waits for the guest's end or the engine's word.
fn serve(
    socket: BorrowedFd<'_>,
    bell: &OwnedFd,
    first_end: &Receiver<End>,
    count: impl Fn() -> Counters,
) -> Option<End> {
    let mut buf = [0; 256];
    loop {
        let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(bell, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
        if let Ok(end) = first_end.try_recv() {
            return Some(end);
        }
        if !fds[0].revents().is_empty() {
            let (n, _) = fdpass::receive(socket, &mut buf).ok().filter(|(n, _)| *n > 0)?;
            if let Ok(Request::Counters) = serde_json::from_slice(&buf[..n]) {
                send(socket, &Event::Counters(count())).ok()?;
            }
        }
    }
}

fn with_symbol(end: End, kernel: &File) -> End {
    match end {
        End::TripleFault { rip, .. } => End::TripleFault { rip, symbol: symbols::name(kernel, rip) },
        End::InternalError { suberror, rip, bytes, .. } => {
            End::InternalError { suberror, rip, bytes, symbol: symbols::name(kernel, rip) }
        }
        other => other,
    }
}

/// The config and its descriptors; `None` if the engine closed before it sent them.
fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(MachineConfig, Descriptors)>> {
    let mut buf = vec![0; MAX_MESSAGE];
    let (n, fds) = fdpass::receive(socket, &mut buf)?;
    if n == 0 {
        return Ok(None);
    }
    let config: MachineConfig = serde_json::from_slice(&buf[..n])?;
    let fds = unpack(&config, fds).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((config, fds)))
}

/// The order in which descriptors travel, on this side; `client::pack` is the other.
fn unpack(config: &MachineConfig, fds: Vec<OwnedFd>) -> Option<Descriptors> {
    let mut fds = fds.into_iter();
    let kvm = fds.next()?;
    let kernel = File::from(fds.next()?);
    let agent = UnixStream::from(fds.next()?);
    let mut share = |layers: u16| -> Option<ShareFiles> {
        let index = File::from(fds.next()?);
        let layers = (0..layers).map(|_| fds.next().map(File::from)).collect::<Option<_>>()?;
        Some(ShareFiles { index, layers })
    };
    let (boot, image) = (share(config.boot_layers)?, share(config.image_layers)?);
    let console = if config.console { Some(File::from(fds.next()?)) } else { None };
    Some(Descriptors { kvm, kernel, agent, boot, image, console })
}

fn send(socket: BorrowedFd<'_>, event: &Event) -> io::Result<()> {
    fdpass::send(socket, &serde_json::to_vec(event)?, &[])
}

/// An error and its causes in one line: it travels as text.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let _ = write!(text, ": {e}");
        cause = e.source();
    }
    text
}

fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}
