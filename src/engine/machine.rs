// SPDX-License-Identifier: Apache-2.0
//! Asking a machine's process for something and waiting until it is done. The process is ours, but may have been captured
//! by its guest: no answer is waited for without a deadline.

use isopod_vmm::envelope::{self, Identity};
use isopod_vmm::{End, Event, Machine};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::time::{Duration, Instant};

/// Stopping waits for the agent to come to its mailbox.
const STOPPING: Duration = Duration::from_secs(60);
/// And as many seconds more as the slowest disk takes for the memory, at so many MiB a second.
const SAVING: Duration = Duration::from_secs(60);
const SLOWEST: u32 = 8;
const LISTING: Duration = Duration::from_secs(2);

/// Why it was not done.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// The machine is as before, and says why.
    Refused(String),
    /// There is no machine any more.
    Ended(End),
}

/// Has it stand still; with the address of the agent's mailbox, once it waits there.
pub(crate) fn pause(machine: &mut Machine, mailbox: Option<u64>) -> Result<(), Refusal> {
    let asked = machine.ask_pause(mailbox);
    answer(machine, asked, STOPPING, |event| matches!(event, Event::Paused))
}

/// Has a machine that stands still written into `file`. What the file says of it is what it was told to say.
pub(crate) fn save(machine: &mut Machine, file: &File, identity: &Identity) -> Result<(), Refusal> {
    let cannot = |e| Refusal::Refused(format!("its identity cannot be handed over: {e}"));
    let told = identity_file(identity).map_err(cannot)?;
    let asked = machine.ask_save(file, &told);
    let limit = SAVING + Duration::from_secs(u64::from(identity.memory_mib / SLOWEST));
    answer(machine, asked, limit, |event| matches!(event, Event::Saved))?;
    match envelope::open(file) {
        Ok(envelope) if envelope.identity == *identity => Ok(()),
        _ => Err(Refusal::Refused("its process has written something else than it was told to".to_owned())),
    }
}

/// As a machine's process takes it.
fn identity_file(identity: &Identity) -> io::Result<File> {
    let mut file = File::from(memfd_create("identity", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(identity)?)?;
    file.rewind()?;
    Ok(file)
}

/// Has it go on, after `bytes` were put into the agent's mailbox.
pub(crate) fn resume(machine: &mut Machine, bytes: Option<&[u8]>) -> Result<(), Refusal> {
    let asked = machine.ask_resume(bytes);
    answer(machine, asked, STOPPING, |event| matches!(event, Event::Resumed))
}

/// Has it write down which pages of its memory were touched so far.
pub(crate) fn touched(machine: &mut Machine, list: &File) -> Result<(), Refusal> {
    let asked = machine.ask_touched(list);
    answer(machine, asked, LISTING, |event| matches!(event, Event::Touched))
}

/// Its next event, if there is one by then.
pub(crate) fn event_by(machine: &mut Machine, deadline: Instant) -> Option<Event> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&*machine, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(n) if n > 0 => return Some(machine.next_event()),
            _ if left.is_zero() => return None,
            _ => {}
        }
    }
}

pub(crate) fn timespec(left: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
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
    let limit = if asked.is_ok() { limit } else { Duration::from_secs(2) };
    let deadline = Instant::now() + limit;
    loop {
        match event_by(machine, deadline) {
            Some(event) if is_due(&event) => return Ok(()),
            Some(Event::Refused { message }) => return Err(Refusal::Refused(message)),
            Some(Event::Ended(end)) => return Err(Refusal::Ended(end)),
            // What was asked for before, and nobody waits for any more.
            Some(_) if Instant::now() < deadline => {}
            _ => {
                return failed(format!("the machine's process did not answer within {} s", limit.as_secs()));
            }
        }
    }
}
