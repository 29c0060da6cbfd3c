// SPDX-License-Identifier: Apache-2.0
//! The engine's side of a machine: starts its process, hands over what it may touch, hears what becomes of it.

use crate::assemble::Descriptors;
use crate::config::{ConfigError, MachineConfig};
use crate::process::NAME;
use crate::wire::{End, Event, MAX_MESSAGE, Request};
use isopod_sys::fdpass;
use isopod_sys::process::program::{self, Beside};
use isopod_sys::process::{Child, Strings};
use libc::SIGBUS;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use thiserror::Error;

pub use crate::assemble::ShareFiles;
pub type MachineDescriptors = Descriptors;

#[derive(Debug, Error)]
pub enum StartError {
    #[error("the machine's configuration is not possible")]
    Config(#[from] ConfigError),
    #[error("an image of {0} layers has more than one machine takes")]
    Layers(usize),
    #[error("cannot start the machine's process (op={op})")]
    Process { op: &'static str, source: io::Error },
}

/// A machine's process. Dropping it ends the process and waits for it.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    socket: OwnedFd,
    reaped: bool,
}

/// Descriptors that are no layers: KVM, kernel, agent, two indices, console, file, list.
const OTHERS: usize = 8;

/// The process's threads ask for memory when they begin, and hardly ever after: none needs a heap of its own.
const ONE_HEAP: &CStr = c"GLIBC_TUNABLES=glibc.malloc.arena_max=1";

/// Starts a machine. The descriptors are the machine's from here on; this process keeps none of them.
pub fn start(config: &MachineConfig, fds: Descriptors) -> Result<Machine, StartError> {
    config.check()?;
    let layers = fds.image.as_ref().map_or(0, |image| image.layers.len());
    if fds.boot.layers.len() + layers + OTHERS > fdpass::MAX_FDS {
        return Err(StartError::Layers(layers));
    }
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|e| process("make a socket pair")(e.into()))?;
    let args = Strings::new(vec![NAME.to_owned()]);
    let env = Strings::new(vec![ONE_HEAP.to_owned()]);
    let child = program::start(c"/proc/self/exe", (&args, &env), theirs.as_fd(), Beside::Stderr)
        .map_err(process("re-execute this program"))?;
    drop(theirs);
    let machine = Machine { child, socket: ours, reaped: false };
    let message = serde_json::to_vec(config).map_err(|e| process("encode the configuration")(e.into()))?;
    fdpass::send(machine.socket.as_fd(), &message, &pack(&fds))
        .map_err(process("hand over the descriptors"))?;
    Ok(machine)
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
        self.child.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The next event; waits for it. A process that is gone without a word is an event, too.
    pub fn next_event(&mut self) -> Event {
        let mut buf = vec![0; MAX_MESSAGE];
        let event = match fdpass::receive(self.socket.as_fd(), &mut buf) {
            Ok((n, _)) if n > 0 => serde_json::from_slice(&buf[..n]).ok(),
            _ => None,
        };
        event.unwrap_or_else(|| Event::Ended(End::Failed { message: self.last_words() }))
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

    /// Has it write which pages of its memory were touched so far. The answer is `Touched`.
    pub fn ask_touched(&self, list: &File) -> io::Result<()> {
        let pagemap = File::open(format!("/proc/{}/pagemap", self.pid()))?;
        self.ask(Request::Touched, &[list.as_fd(), pagemap.as_fd()])
    }

    /// Has it go on, after `bytes` were put into the agent's mailbox. The answer is `Resumed`.
    pub fn ask_resume(&self, bytes: Option<&[u8]>) -> io::Result<()> {
        self.ask(Request::Resume { mailbox: bytes.is_some() }, &[])?;
        bytes.map_or(Ok(()), |bytes| self.deliver(bytes))
    }

    /// What a restored machine finds in its mailbox; it does not run before it has that.
    pub fn deliver(&self, bytes: &[u8]) -> io::Result<()> {
        fdpass::send(self.socket.as_fd(), bytes, &[])
    }

    fn ask(&self, request: Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        fdpass::send(self.socket.as_fd(), &serde_json::to_vec(&request)?, fds)
    }

    /// Ends the process, whatever it is doing; whoever drops this waits until it is gone.
    pub fn end(&self) {
        if !self.reaped {
            let _ = self.child.kill();
        }
    }

    /// The same, and waits until it is gone.
    pub fn kill(&mut self) {
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.reaped = true;
        }
    }

    fn last_words(&mut self) -> String {
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => {
                self.reaped = true;
                let how = match (status.exit_status(), status.terminating_signal()) {
                    (_, Some(SIGBUS)) => "a file behind its memory was cut short: SIGBUS".to_owned(),
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
        self.socket.as_fd()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn process(op: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Process { op, source }
}
