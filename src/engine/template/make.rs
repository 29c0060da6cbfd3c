// SPDX-License-Identifier: Apache-2.0
//! Making a template: a machine without an image boots, its agent says hello and goes to its mailbox, and there the
//! machine is stopped and written down.
//!
//! Whoever makes one may be killed at any point: the machine ends with him, and a file without a name is none.

use super::{Greeting, Making, Needed};
use crate::agent::{Conversation, Heard, Misbehaviour, Phase};
use crate::container::process;
use crate::error::{EngineError, Kind, Result};
use crate::machine::{LAST_WORDS, Refusal, Watched, event_by, not_started};
use crate::stdio::{Ending, Waiting};
use isopod_protocol::frame::put_from_host;
use isopod_protocol::{AGENT_PORT, Decoder, FromHost};
use isopod_sys::unnamed::Unnamed;
use isopod_vmm::client::{self, MachineDescriptors, ShareFiles};
use isopod_vmm::envelope::Identity;
use isopod_vmm::{Event, Machine, MachineConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::result::Result as StdResult;
use std::time::{Duration, Instant};

/// Why there is no template.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The guest's fault: it would not run a container either.
    Guest(Ending),
    /// The host's.
    Host(EngineError),
}

impl From<EngineError> for Failed {
    fn from(error: EngineError) -> Self {
        Self::Host(error)
    }
}

/// Where it is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made<'a> {
    pub(super) folder: &'a Path,
    pub(super) name: &'a str,
}

pub(super) fn make(
    needed: Needed<'_>,
    boot: ShareFiles,
    identity: Identity,
    made: Made<'_>,
    progress: &mut dyn FnMut(Making),
) -> StdResult<File, Failed> {
    let cannot = |e| EngineError::io(format!("cannot make a template in {}", made.folder.display()))(e);
    let unnamed = Unnamed::new(made.folder, 0o600).map_err(cannot)?;
    progress(Making::Booting);
    let (mut machine, mut line) = start(needed, boot)?;
    let greeting = hello(&mut machine, &mut line, needed.limit)?;
    let mailbox = greeting.mailbox;
    let extra = serde_json::to_value(greeting).map_err(EngineError::io("cannot encode a greeting"))?;
    prepare(&line)?;
    machine.pause(Some(mailbox))?;
    progress(Making::Saving);
    machine.save(unnamed.file(), &Identity { extra, ..identity })?;
    machine.kill();
    Ok(unnamed.link(made.name).map_err(cannot)?)
}

fn start(needed: Needed<'_>, boot: ShareFiles) -> Result<(Machine, UnixStream)> {
    let failed = "cannot start the machine";
    let (ours, theirs) = UnixStream::pair().map_err(EngineError::io(failed))?;
    let config = MachineConfig {
        vcpus: needed.vcpus,
        memory_mib: needed.memory_mib,
        cmdline_extra: String::new(),
        console: false,
        assist: needed.kvm.host.assist,
        agent_port: AGENT_PORT,
        boot_layers: u16::try_from(boot.layers.len()).unwrap_or(u16::MAX),
        image_layers: None,
        restored: false,
        touched: false,
    };
    let copy = |file: &File| file.try_clone().map_err(EngineError::io(failed));
    let descriptors = MachineDescriptors {
        kvm: copy(&needed.kvm.file)?.into(),
        kernel: copy(&needed.kernel.file)?,
        agent: theirs,
        boot,
        image: None,
        console: None,
        saved: None,
        touched: None,
    };
    let cell = client::cell(needed.layers, needed.memory_mib, needed.vcpus);
    let process = client::spawn(&cell, None).map_err(not_started)?;
    let machine = client::start(process, &config, descriptors).map_err(not_started)?;
    Ok((machine, ours))
}

/// Tells the agent what to prepare for.
fn prepare(mut line: &UnixStream) -> Result<()> {
    let mut words = Vec::new();
    // A few thousand bytes, far below what a message may have.
    let _ = put_from_host(&mut words, &FromHost::prepare(process::likely()));
    line.write_all(&words).map_err(EngineError::io("cannot tell the agent what to prepare"))
}

/// What the agent says first, or what became of it instead.
fn hello(machine: &mut Machine, line: &mut UnixStream, limit: Duration) -> StdResult<Greeting, Failed> {
    let deadline = Instant::now() + limit;
    let mut conversation = Conversation::new(false);
    let mut decoder = Decoder::default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failed::Guest(Ending::Silent { waiting: Waiting::Hello, limit }));
        }
        let mut fds = [PollFd::new(&*line, PollFlags::IN), PollFd::new(&*machine, PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        let [spoke, happened] = [0, 1].map(|n: usize| !fds[n].revents().is_empty());
        if spoke {
            match recv(&*line, decoder.space(), RecvFlags::DONTWAIT) {
                Ok((_, n)) if n > 0 => decoder.advance(n),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Its machine has a reason to tell.
                _ => return Err(Failed::Guest(last_words(machine))),
            }
            match greeting(&mut conversation, &mut decoder) {
                Ok(None) => {}
                Ok(Some(greeting)) => return Ok(greeting),
                Err(misbehaviour) => return Err(Failed::Guest(Ending::Misbehaved(misbehaviour))),
            }
        }
        if happened && let Event::Ended(end) = machine.next_event() {
            return Err(Failed::Guest(Ending::Machine { end, phase: Phase::Booting }));
        }
    }
}

fn greeting(
    conversation: &mut Conversation,
    decoder: &mut Decoder,
) -> StdResult<Option<Greeting>, Misbehaviour> {
    let Some(frame) = decoder.next_frame()? else { return Ok(None) };
    match conversation.hear(frame)? {
        Heard::Hello(greeting) => Ok(Some(greeting)),
        // A conversation that begins otherwise is an error of its own.
        _ => Ok(None),
    }
}

fn last_words(machine: &mut Machine) -> Ending {
    let hung_up = Ending::HungUp { phase: Phase::Booting };
    let deadline = Instant::now() + LAST_WORDS;
    while let Some(event) = event_by(machine, deadline).filter(|_| Instant::now() < deadline) {
        if let Event::Ended(end) = event {
            return Ending::Machine { end, phase: Phase::Booting };
        }
    }
    hung_up
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Refused(why) => {
                Self::Host(EngineError::new(Kind::Io, "the machine cannot be saved").because(why))
            }
            Refusal::Ended(end) => Self::Guest(Ending::Machine { end, phase: Phase::Booting }),
        }
    }
}
