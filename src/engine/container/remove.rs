// SPDX-License-Identifier: Apache-2.0
//! `rm`: forgets a container; with force, after ending its machine.

use super::records::{MachineProcess, Record, Records};
use crate::error::{EngineError, Kind, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::thread;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(20);
/// Five seconds of pauses: an owner has nothing to do but write its record once its machine is gone.
const TRIES: u32 = 250;

pub(crate) fn remove(records: &Records, reference: &str, force: bool) -> Result<Record> {
    let record = records.find(reference)?;
    if records.remove(&record.id)? {
        return Ok(record);
    }
    if !force {
        let what = format!("container {} is {}", record.name, record.state.name());
        return Err(EngineError::new(Kind::Conflict, what)
            .hint(format!("end it first, or end and remove it with `isopod rm -f {}`", record.name)));
    }
    let gone = records.wait_for_owner(&record.id, TRIES, || {
        // The machine may not have been there yet when the record was read.
        let machine = records.find(record.id.as_str()).ok().and_then(|r| r.machine);
        machine.into_iter().for_each(end);
        thread::sleep(PAUSE);
    });
    // The owner removes it by itself if it was started with --rm.
    if gone && (records.remove(&record.id)? || records.find(record.id.as_str()).is_err()) {
        return Ok(record);
    }
    Err(EngineError::new(Kind::Io, format!("container {} does not end", record.name))
        .hint("the process that runs it hangs; look for `isopod run` in `ps`"))
}

/// Kills exactly that process.
fn end(machine: MachineProcess) {
    let pid = i32::try_from(machine.pid).ok().and_then(Pid::from_raw);
    let Some(Ok(fd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return;
    };
    // The descriptor holds on to whoever has the number now; is it the one that was meant?
    if MachineProcess::of(machine.pid) == Some(machine) {
        let _ = pidfd_send_signal(&fd, Signal::KILL);
    }
}
