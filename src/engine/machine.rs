// SPDX-License-Identifier: Apache-2.0
//! Asking a machine's process for something and waiting until it is done. The process is ours, but may have been captured
//! by its guest: no answer is waited for without a deadline.

use crate::error::{EngineError, Kind};
use isopod_jail::Layer;
use isopod_vmm::client::StartError;
use isopod_vmm::envelope::{self, Identity};
use isopod_vmm::{End, Event, Machine};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a machine that does not listen any more, or whose agent has hung up, has to say why.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);
/// Stopping waits for the agent to come to its mailbox.
const STOPPING: Duration = Duration::from_secs(60);
/// And as many seconds more as the slowest disk takes for the memory, at so many MiB a second.
const SAVING: Duration = Duration::from_secs(60);
const SLOWEST: u32 = 8;
const LISTING: Duration = Duration::from_secs(10);

/// Why it was not done.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// The machine is as before, and says why.
    Refused(String),
    /// There is no machine any more.
    Ended(End),
}

/// Why a machine's process was not started, and what can be done if its jail is the reason.
pub(crate) fn not_started(error: StartError) -> EngineError {
    let layer = error.layer();
    let kind = if layer.is_some() { Kind::Unavailable } else { Kind::Io };
    let error = EngineError::new(kind, "cannot start the machine").because(error);
    match layer {
        Some(layer) => error.hint(without(layer)),
        None => error,
    }
}

/// How to go without a layer of the jail that cannot be had.
pub(crate) fn without(layer: Layer) -> String {
    format!(
        "`isopod doctor` tells what this host has; ISOPOD_JAIL=no-{layer} goes without it in every command, \
         `--security-opt isopod.jail=no-{layer}` in one run"
    )
}

/// A machine, as far as those care who attend to it.
pub(crate) trait Watched {
    /// Readable when there is an event.
    fn fd(&self) -> BorrowedFd<'_>;
    fn event(&mut self) -> Event;
    /// Asks for the counters, which come as an event; they are for show.
    fn count(&mut self);
    /// Has it stand still; with the address of the agent's mailbox, once it waits there.
    fn pause(&mut self, mailbox: Option<u64>) -> Result<(), Refusal>;
    /// Has a machine that stands still written into `file`. What the file says of it is what it was told to say.
    fn save(&mut self, file: &File, identity: &Identity) -> Result<(), Refusal>;
    /// Has it go on, after `bytes` were put into the agent's mailbox.
    fn resume(&mut self, bytes: Option<&[u8]>) -> Result<(), Refusal>;
    /// Has it write down which pages of its memory were touched so far.
    fn touched(&mut self, list: &File) -> Result<(), Refusal>;
}

impl Watched for Machine {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn event(&mut self) -> Event {
        self.next_event()
    }

    fn count(&mut self) {
        let _ = self.ask_counters();
    }

    fn pause(&mut self, mailbox: Option<u64>) -> Result<(), Refusal> {
        let asked = self.ask_pause(mailbox);
        answer(self, asked, STOPPING, |event| matches!(event, Event::Paused))
    }

    fn save(&mut self, file: &File, identity: &Identity) -> Result<(), Refusal> {
        let cannot = |e| Refusal::Refused(format!("its identity cannot be handed over: {e}"));
        let told = identity_file(identity).map_err(cannot)?;
        let asked = self.ask_save(file, &told);
        let limit = SAVING + Duration::from_secs(u64::from(identity.memory_mib / SLOWEST));
        answer(self, asked, limit, |event| matches!(event, Event::Saved))?;
        match envelope::open(file) {
            Ok(envelope) if envelope.identity == *identity => Ok(()),
            _ => {
                let why = "its process has written something else than it was told to";
                Err(Refusal::Refused(why.to_owned()))
            }
        }
    }

    fn resume(&mut self, bytes: Option<&[u8]>) -> Result<(), Refusal> {
        let asked = self.ask_resume(bytes);
        answer(self, asked, STOPPING, |event| matches!(event, Event::Resumed))
    }

    fn touched(&mut self, list: &File) -> Result<(), Refusal> {
        let asked = self.ask_touched(list);
        answer(self, asked, LISTING, |event| matches!(event, Event::Touched))
    }
}

/// As a machine's process takes it.
fn identity_file(identity: &Identity) -> io::Result<File> {
    let mut file = File::from(memfd_create("identity", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(identity)?)?;
    file.rewind()?;
    Ok(file)
}

/// Its next event, if there is one by then.
pub(crate) fn event_by(machine: &mut Machine, deadline: Instant) -> Option<Event> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&*machine, PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(n) if n > 0 => return Some(machine.next_event()),
            _ if left.is_zero() => return None,
            _ => {}
        }
    }
}

fn answer(
    machine: &mut Machine,
    asked: io::Result<()>,
    limit: Duration,
    is_due: impl Fn(&Event) -> bool,
) -> Result<(), Refusal> {
    let failed = |message: String| Err(Refusal::Ended(End::Failed { message }));
    // One that does not listen is about to say why.
    let limit = if asked.is_ok() { limit } else { LAST_WORDS };
    let deadline = Instant::now() + limit;
    loop {
        match event_by(machine, deadline) {
            Some(event) if is_due(&event) => return Ok(()),
            Some(Event::Refused { message }) => return Err(Refusal::Refused(message)),
            Some(Event::Ended(end)) => return Err(Refusal::Ended(end)),
            // What was asked for before, and nobody waits for any more.
            Some(_) if Instant::now() < deadline => {}
            _ => {
                // One that was not asked and says nothing is as before.
                asked.map_err(|e| Refusal::Refused(format!("it cannot be asked: {e}")))?;
                return failed(format!("the machine's process did not answer within {} s", limit.as_secs()));
            }
        }
    }
}
