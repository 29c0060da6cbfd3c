// SPDX-License-Identifier: Apache-2.0
//! The engine's side of a machine: starts its process, hands over what it may touch, hears what becomes of it.

use crate::assemble::Descriptors;
use crate::config::{ConfigError, MIN_MEMORY_MIB, MachineConfig};
use crate::process::{NAME, chain};
use crate::vcpu::MEMORY_GONE;
use crate::wire::{End, Event, MAX_MESSAGE, Request};
use isopod_jail::{Cell, GroupLimits, Jailed, Layer, Layers, Limits, StartError as CellError, Waiting};
use isopod_sys::fdpass;
use libc::{SIGBUS, SIGKILL, SIGSYS};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{Shutdown, shutdown};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use thiserror::Error;

pub use crate::assemble::ShareFiles;
pub type MachineDescriptors = Descriptors;

#[derive(Debug, Error)]
pub enum StartError {
    #[error("the machine's configuration is not possible")]
    Config(#[from] ConfigError),
    #[error("an image of {0} layers has more than one machine takes")]
    Layers(usize),
    #[error(transparent)]
    Jail(#[from] CellError),
    #[error("cannot start the machine's process (op={op})")]
    Process { op: &'static str, source: io::Error },
}

impl StartError {
    /// The layer of its jail that cannot be had, if that is why.
    pub fn layer(&self) -> Option<Layer> {
        match self {
            Self::Jail(error) => error.layer(),
            _ => None,
        }
    }
}

/// A machine's process. Dropping it ends the process and waits for it.
#[derive(Debug)]
pub struct Machine {
    process: Jailed,
    reaped: bool,
    /// For the names of its functions, should the guest end in one.
    kernel: File,
    /// What its memory is mapped from, and how long that was.
    saved: Option<(File, u64)>,
    pagemap: Option<File>,
    /// Its guest has run: from then on it may be somebody else's.
    ran: bool,
}

/// Descriptors that are no layers: KVM, kernel, agent, two indices, console, file, list.
const OTHERS: usize = 8;

/// Bytes.
const LONGEST_INSTRUCTION: usize = 15;
/// Characters of what a machine's process says that are told.
const MOST_WORDS: usize = 1024;

/// Descriptors it makes itself, at most: vCPUs and their counters, queues, interrupts.
const MADE: u64 = 256;
/// Threads that are no vCPUs: the first, four devices', one that maps pages, and what the kernel makes for KVM.
const THREADS: u64 = 16;
/// A page table's part of the memory it is of, twice (the process's and KVM's), and as much as KVM's shadow may take (2 %).
const TABLES: u64 = 32;
/// How long what is sent may wait for room.
const SENDING: Duration = Duration::from_secs(10);
/// Bytes that a machine may have beside its guest's memory.
const MEMORY_BESIDE: u64 = 64 << 20;

/// The jail of a machine with so much memory and so many vCPUs.
#[must_use]
pub fn cell(layers: Layers, memory_mib: u32, vcpus: u8) -> Cell {
    let guest = u64::from(memory_mib) << 20;
    let memory = guest + guest / TABLES + MEMORY_BESIDE;
    let threads = u64::from(vcpus) + THREADS;
    Cell {
        layers,
        // It writes its memory into a file when it is saved.
        limits: Limits {
            files: fdpass::MAX_FDS as u64 + MADE,
            file_bytes: memory,
            threads,
            data: memory,
            addresses: None,
        },
        group: Some(GroupLimits { memory, threads, processors: u64::from(vcpus) + 1 }),
    }
}

/// Has a process enter a machine's jail and end there; else which layer cannot be had, if it is one, and why.
pub fn try_jail(layers: Layers) -> Result<(), (Option<Layer>, String)> {
    let process = cell(layers, MIN_MEMORY_MIB, 1).start(NAME, None);
    let process = process.map_err(|e| (e.layer(), chain(&e)))?;
    // A process that is in its jail waits for its configuration. When there will be none it closes what is left, and ends.
    let _ = shutdown(&process.socket, Shutdown::Write);
    let mut said = vec![0; MAX_MESSAGE];
    let said = fdpass::receive_words(process.socket.as_fd(), &mut said).map(|n| said[..n].to_vec());
    let ended = process.child.wait().is_ok_and(|status| status.exit_status() == Some(0));
    match said {
        Ok(said) if said.is_empty() && ended => Ok(()),
        Ok(said) => match serde_json::from_slice(&said) {
            Ok(Event::Ended(End::Unjailed { layer, message })) => Err((Some(layer), printable(&message))),
            _ => Err((None, "a process that entered its jail does not end there as it should".to_owned())),
        },
        Err(e) => Err((None, format!("a process that entered its jail cannot be heard: {e}"))),
    }
}

/// Starts a machine's process before it is known which machine's.
pub fn spawn_ahead(layers: Layers) -> Result<Waiting, StartError> {
    Ok(Waiting::start(NAME, layers)?)
}

/// Has a machine's process, the one that waits or a new one, close its jail behind itself while its configuration is still
/// being worked out.
pub fn spawn(cell: &Cell, waiting: Option<Waiting>) -> Result<Jailed, StartError> {
    Ok(cell.start(NAME, waiting)?)
}

/// Starts a machine in a process of its own. The descriptors are the machine's from here on.
pub fn start(process: Jailed, config: &MachineConfig, fds: Descriptors) -> Result<Machine, StartError> {
    config.check()?;
    let layers = fds.image.as_ref().map_or(0, |image| image.layers.len());
    if fds.boot.layers.len() + layers + OTHERS > fdpass::MAX_FDS {
        return Err(StartError::Layers(layers));
    }
    let message = serde_json::to_vec(config).map_err(|e| failed("encode the configuration")(e.into()))?;
    // A process that was captured may never read again.
    set_socket_timeout(&process.socket, Timeout::Send, Some(SENDING))
        .map_err(|e| failed("limit a wait")(e.into()))?;
    let sent = fdpass::send(process.socket.as_fd(), &message, &pack(&fds));
    let len = |file: File| file.metadata().map(|at| (file, at.len())).ok();
    let saved = fds.saved.and_then(len);
    let machine = Machine { process, reaped: false, kernel: fds.kernel, saved, pagemap: None, ran: false };
    match sent {
        // One that is gone has said why.
        Err(e) if !matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Err(failed("hand over the descriptors")(e))
        }
        _ => Ok(machine),
    }
}

/// The order in which descriptors travel, on this side; `process::unpack` is the other.
fn pack(fds: &Descriptors) -> Vec<BorrowedFd<'_>> {
    let mut all = vec![fds.kvm.as_fd(), fds.kernel.as_fd(), fds.agent.as_fd()];
    for share in [Some(&fds.boot), fds.image.as_ref()].into_iter().flatten() {
        all.push(share.index.as_fd());
        all.extend(share.layers.iter().map(AsFd::as_fd));
    }
    all.extend(fds.console.as_ref().map(AsFd::as_fd));
    all.extend(fds.saved.as_ref().map(AsFd::as_fd));
    all.extend(fds.touched.as_ref().map(AsFd::as_fd));
    all
}

impl Machine {
    pub fn pid(&self) -> u32 {
        self.process.child.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The next event; waits for it. A process that is gone without a word is an event, too.
    pub fn next_event(&mut self) -> Event {
        let mut buf = vec![0; MAX_MESSAGE];
        let event = match fdpass::receive_last(self.process.socket.as_fd(), &mut buf) {
            Ok(n @ 1..) => serde_json::from_slice(&buf[..n]).ok(),
            _ => None,
        };
        match event.unwrap_or_else(|| Event::Ended(End::Failed { message: self.last_words() })) {
            Event::Ended(end) => Event::Ended(self.explain(end)),
            Event::Running(marks) => {
                self.ran = true;
                Event::Running(marks)
            }
            Event::Refused { message } => Event::Refused { message: printable(&message) },
            event => event,
        }
    }

    /// An end, with the names of the kernel's functions in it. A guest that lost a page of its memory may end in any way:
    /// then that is the reason.
    fn explain(&self, end: End) -> End {
        let is_cut_short = |(file, len): &(File, u64)| file.metadata().is_ok_and(|at| at.len() < *len);
        match end {
            _ if self.saved.as_ref().is_some_and(is_cut_short) => {
                End::Failed { message: MEMORY_GONE.to_owned() }
            }
            End::Failed { message } => End::Failed { message: printable(&message) },
            End::Unjailed { message, .. } if self.ran => End::Failed { message: printable(&message) },
            End::Unjailed { layer, message } => End::Unjailed { layer, message: printable(&message) },
            End::InternalError { suberror, rip, mut bytes, symbol } => {
                bytes.truncate(LONGEST_INSTRUCTION);
                End::InternalError { suberror, rip, bytes, symbol }.with_symbols(&self.kernel)
            }
            end => end.with_symbols(&self.kernel),
        }
    }

    /// Asks for the counters, which come as an event.
    pub fn ask_counters(&self) -> io::Result<()> {
        self.ask(Request::Counters, &[])
    }

    /// Has it stand still; with the address of the agent's mailbox, once it waits there. The answer is `Paused`.
    pub fn ask_pause(&self, mailbox: Option<u64>) -> io::Result<()> {
        self.ask(Request::Pause { mailbox }, &[])
    }

    /// Has a machine that stands still written into `file`, with the JSON that `identity` holds. The answer is `Saved`.
    pub fn ask_save(&self, file: &File, identity: &File) -> io::Result<()> {
        self.ask(Request::Save, &[file.as_fd(), identity.as_fd()])
    }

    /// Sees to it that it can be asked what was touched: who only supervises may not look into another process any more. The
    /// machine is handed the file, so it is opened without the capability that shows where on the host a page is
    /// (proc_pid_pagemap(5)); this thread goes without that from here on.
    pub fn look_at_pages(&mut self) {
        let without = || -> io::Result<File> {
            let mut sets = capabilities(None)?;
            sets.effective.remove(CapabilitySet::SYS_ADMIN);
            set_capabilities(None, sets)?;
            File::open(format!("/proc/{}/pagemap", self.pid()))
        };
        self.pagemap = without().ok();
    }

    /// Has it write which pages of its memory were touched so far. The answer is `Touched`.
    pub fn ask_touched(&self, list: &File) -> io::Result<()> {
        let pagemap = self.pagemap.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
        self.ask(Request::Touched, &[list.as_fd(), pagemap.as_fd()])
    }

    /// Has it go on, after `bytes` were put into the agent's mailbox. The answer is `Resumed`.
    pub fn ask_resume(&self, bytes: Option<&[u8]>) -> io::Result<()> {
        self.ask(Request::Resume { mailbox: bytes.is_some() }, &[])?;
        bytes.map_or(Ok(()), |bytes| self.deliver(bytes))
    }

    /// What a restored machine finds in its mailbox; it does not run before it has that.
    pub fn deliver(&self, bytes: &[u8]) -> io::Result<()> {
        fdpass::send(self.process.socket.as_fd(), bytes, &[])
    }

    fn ask(&self, request: Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        fdpass::send(self.process.socket.as_fd(), &serde_json::to_vec(&request)?, fds)
    }

    /// Ends the process, whatever it is doing; whoever drops this waits until it is gone.
    pub fn end(&self) {
        if !self.reaped {
            let _ = self.process.child.kill();
        }
    }

    /// The same, and waits until it is gone.
    pub fn kill(&mut self) {
        if !self.reaped {
            let _ = self.process.child.kill();
            let _ = self.process.child.wait();
            self.reaped = true;
        }
    }

    fn last_words(&mut self) -> String {
        let _ = self.process.child.kill();
        match self.process.child.wait() {
            Ok(status) => {
                self.reaped = true;
                let how = match (status.exit_status(), status.terminating_signal()) {
                    (_, Some(SIGBUS)) => "a file behind its memory was cut short: SIGBUS".to_owned(),
                    (_, Some(SIGKILL)) if self.process.was_out_of_memory() => {
                        "its control group's limit of memory was reached".to_owned()
                    }
                    (_, Some(SIGSYS)) => "it made a system call that its jail forbids: SIGSYS".to_owned(),
                    (_, Some(signal)) => format!("signal {signal}"),
                    (code, None) => format!("exit code {}", code.unwrap_or(0)),
                };
                format!("the machine's process ended without a word ({how})")
            }
            Err(e) => format!("the machine's process cannot be waited for: {e}"),
        }
    }
}

/// Readable when `next_event` will not wait.
impl AsFd for Machine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.socket.as_fd()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Words of a process that may be somebody else's by now, as a terminal may be shown them.
fn printable(words: &str) -> String {
    words.chars().take(MOST_WORDS).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn failed(op: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Process { op, source }
}
