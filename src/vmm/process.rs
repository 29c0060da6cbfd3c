// SPDX-License-Identifier: Apache-2.0
//! The machine's process: receives what it is to be, becomes it, and ends with the guest or with the engine.
//!
//! ```text
//!   Closing ──in jail──► Waiting ──config, descriptors──► Assembling ──Running──► Running ──Ended──► gone
//!      └──Ended(Unjailed)──► gone                             └──────Ended(Failed)────────────────► gone
//!   and from everywhere: the engine's end closes, or the engine dies ──────────────────────────────► gone
//! ```
//!
//! "Gone" is the process's exit: the kernel takes back memory, vCPUs and descriptors, and nothing here can forget one.

use crate::assemble::{self, Descriptors, ShareFiles};
use crate::calls;
use crate::config::MachineConfig;
use crate::machine::Machine;
use crate::wire::{End, Event, MAX_MESSAGE, MAX_REQUEST, Marks, Request};
use isopod_jail::{Entered, JailError, Layer};
use isopod_sys::confined::Closing;
use isopod_sys::seccomp::allow_only;
use isopod_sys::{fdpass, heap};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};
use rustix::process::{Signal, set_parent_process_death_signal, setsid};
use rustix::thread::set_name;
use rustix::time::{ClockId, clock_gettime};
use std::error::Error;
use std::ffi::CStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic;
use std::process::{ExitCode, abort};

/// What `client` calls this process, and how `main` knows that it is one.
pub const NAME: &CStr = c"isopod-vmm";

/// The whole life of a machine's process. Its standard input is the socket to the engine. All signals stay blocked, as
/// who started it left them: its end is the engine's to ask for, and SIGKILL needs no leave.
pub fn main() -> ExitCode {
    let started = now();
    // Otherwise it would be called after the link it was executed by.
    let _ = set_name(NAME);
    heap::share_one();
    // If the engine is already gone the socket tells so; this is for the time after.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // A terminal's Ctrl-C is for the container; its own session is where none arrives.
    let _ = setsid();
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    if let Ok(told) = socket.try_clone() {
        tell_panics(told);
    }
    if let Some(end) = live(started, socket.as_fd()) {
        let _ = send(socket.as_fd(), &Event::Ended(end));
    }
    ExitCode::SUCCESS
}

/// A panic of any thread is the machine's end, and the engine hears of it: a thread that is gone would be waited for for ever.
fn tell_panics(socket: OwnedFd) {
    panic::set_hook(Box::new(move |panic| {
        let message = format!("a bug: the machine's process panicked ({panic})");
        if let Ok(event) = serde_json::to_vec(&Event::Ended(End::Failed { message })) {
            let _ = write(&socket, &event);
        }
        // Whichever way: a thread that may not send itself a signal is ended for trying.
        abort();
    }));
}

/// Until there is an end to be told; `None` if the engine went away.
fn live(started: u64, socket: BorrowedFd<'_>) -> Option<End> {
    let unjailed = |e: &JailError| End::Unjailed { layer: e.layer, message: chain(&e.source) };
    let jail = match isopod_jail::enter(socket) {
        Ok(jail) => jail?,
        Err(e) => return Some(unjailed(&e)),
    };
    let marks = Marks { process: started, jailed: now(), ..Marks::default() };
    let Some((config, fds)) = receive(socket).ok()? else {
        // Nobody wants a machine: it is asked whether its jail closes.
        return close(jail, Vec::new()).err().as_ref().map(unjailed);
    };
    let marks = Marks { config: now(), ..marks };
    match begin(&config, fds, marks, (socket, jail)) {
        // Nobody takes it apart: the process's end is what frees all of it, at once.
        Ok(Some(machine)) => serve(&mut ManuallyDrop::new(machine), socket),
        Ok(None) => None,
        Err(e) => Some(match e.downcast_ref::<JailError>() {
            Some(e) => unjailed(e),
            None => End::Failed { message: chain(&*e) },
        }),
    }
}

/// Closes the jail's last layer: waits for the other threads' filters, and closes this one's.
fn close(jail: Entered, threads: Vec<Closing>) -> Result<(), JailError> {
    let failed = |source| JailError { layer: Layer::Seccomp, source };
    threads.into_iter().try_for_each(Closing::wait).map_err(failed)?;
    if jail.filters() {
        allow_only(calls::MAIN).map_err(failed)?;
    }
    Ok(())
}

/// Makes the machine and lets it run; `None` if the engine went away.
fn begin(
    config: &MachineConfig,
    fds: Descriptors,
    mut marks: Marks,
    (socket, jail): (BorrowedFd<'_>, Entered),
) -> Result<Option<Machine>, Box<dyn Error>> {
    let (mut machine, mut closing) = Machine::new(assemble::assemble(config, fds)?, jail.filters())?;
    // It may have gone without.
    let mapper = machine.mapper(jail.filters()).map(|(mapper, closes)| {
        closing.push(closes);
        mapper
    });
    marks.assembled = now();
    let mut bytes = Vec::new();
    if config.restored {
        bytes = vec![0; MAX_MESSAGE];
        match fdpass::receive(socket, &mut bytes)? {
            (0, _) => return Ok(None),
            (n, _) => bytes.truncate(n),
        }
    }
    close(jail, closing)?;
    marks.first_run = now();
    // Before the guest's first instruction: what is said after it may be the guest's word.
    if send(socket, &Event::Running(marks)).is_err() {
        return Ok(None);
    }
    machine.resume(config.restored.then_some(&bytes))?;
    let _ = mapper.map(|mapper| mapper.send(()));
    Ok(Some(machine))
}

/// Waits for the guest's end or the engine's word; `None` if the engine went away.
fn serve(machine: &mut Machine, socket: BorrowedFd<'_>) -> Option<End> {
    // What the start needed; from here on there is little to do for as long as the guest runs.
    heap::give_back();
    let mut buf = [0; MAX_REQUEST];
    loop {
        let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&machine.ends, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
        let asked = !fds[0].revents().is_empty();
        if let Some(end) = machine.ends.first() {
            return Some(end);
        }
        if asked {
            let (n, fds) = fdpass::receive(socket, &mut buf).ok().filter(|(n, _)| *n > 0)?;
            let request = serde_json::from_slice(&buf[..n]).ok()?;
            let event = match obey(machine, request, fds, socket) {
                Ok(event) => event,
                Err(e) if machine.is_lost() => return Some(End::Failed { message: chain(&*e) }),
                Err(e) => Event::Refused { message: chain(&*e) },
            };
            send(socket, &event).ok()?;
        }
    }
}

fn obey(
    machine: &mut Machine,
    request: Request,
    fds: Vec<OwnedFd>,
    socket: BorrowedFd<'_>,
) -> Result<Event, Box<dyn Error>> {
    match request {
        Request::Counters => Ok(Event::Counters(machine.count())),
        Request::Pause { mailbox } => machine.pause(mailbox).map(|()| Event::Paused).map_err(Into::into),
        Request::Save => {
            let [file, identity] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| "two descriptors are due")?;
            let identity = serde_json::from_reader(BufReader::new(File::from(identity)))?;
            machine.save(&File::from(file), &identity)?;
            Ok(Event::Saved)
        }
        Request::Touched => {
            let [list, pagemap] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| "two descriptors are due")?;
            machine.record_touched(&File::from(pagemap), &mut File::from(list))?;
            Ok(Event::Touched)
        }
        Request::Resume { mailbox } => {
            let mut bytes = vec![0; if mailbox { MAX_MESSAGE } else { 0 }];
            if mailbox {
                let (n, _) = fdpass::receive(socket, &mut bytes)?;
                bytes.truncate(n);
            }
            machine.resume(mailbox.then_some(&bytes))?;
            Ok(Event::Resumed)
        }
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
    let boot = share(config.boot_layers)?;
    let image = match config.image_layers {
        Some(layers) => Some(share(layers)?),
        None => None,
    };
    let optional = |there: bool| if there { fds.next().map(File::from).map(Some) } else { Some(None) };
    let [console, saved, touched] = [config.console, config.restored, config.touched].map(optional);
    Some(Descriptors { kvm, kernel, agent, boot, image, console: console?, saved: saved?, touched: touched? })
}

fn send(socket: BorrowedFd<'_>, event: &Event) -> io::Result<()> {
    fdpass::send(socket, &serde_json::to_vec(event)?, &[])
}

/// An error and its causes in one line: it travels as text.
pub(crate) fn chain(error: &dyn Error) -> String {
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
