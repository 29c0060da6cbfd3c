// SPDX-License-Identifier: Apache-2.0
//! What an ending means to who started the container.

use super::now;
use super::state::{Exit, KILLED};
use crate::agent::Phase;
use crate::error::{EngineError, Kind, Result};
use crate::machine::without;
use crate::stdio::{Ending, Waiting};
use isopod_protocol::message::FailedKind;
use isopod_vmm::End;

pub(crate) const START_TIMEOUT: &str = "ISOPOD_START_TIMEOUT";

/// The exit code of a failure to run, as Docker has it.
pub fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::NotExecutable => 126,
        Kind::NoCommand => 127,
        _ => 125,
    }
}

/// What each ending means to who started the container.
///
/// | ending | before the process ran | while it ran |
/// |---|---|---|
/// | the process exited | | its code |
/// | the agent could not start it | 125, 126, 127 | |
/// | the guest powered off, reset, panicked, triple-faulted; its machine was killed | 125 | 137 and the reason |
/// | KVM could not go on; the agent broke the protocol | 125 | 125 |
/// | no answer by the deadline | 125 | 137 and the reason |
/// | a signal to us | 128 and its number | (passed on) |
/// | three of SIGINT and SIGTERM within 3 s | | 137 and the reason |
pub(crate) fn conclude(ending: Ending) -> Result<Exit> {
    let killed = |reason: String| Ok(Exit::new(KILLED, now()).because(reason));
    let guest = |what: &str| EngineError::new(Kind::Guest, what);
    let not_started = "the container did not start";
    match ending {
        Ending::Exited(end) => {
            let exit = Exit::new(end.code, now());
            let reason = end.out_of_memory.then(|| "the guest ran out of memory".to_owned());
            Ok(Exit { out_of_memory: end.out_of_memory, reason, ..exit })
        }
        Ending::NotStarted { kind, message } => {
            let kind = match kind {
                FailedKind::Setup => Kind::Guest,
                FailedKind::NotFound => Kind::NoCommand,
                FailedKind::NotExecutable => Kind::NotExecutable,
                FailedKind::NoSuchUser => Kind::Invalid,
            };
            Err(EngineError::new(kind, not_started).because(message))
        }
        Ending::Machine { end: end @ End::InternalError { .. }, .. } => {
            Err(guest("the machine cannot go on")
                .because(end.to_string())
                .hint("`isopod doctor` looks at this host's KVM"))
        }
        Ending::Machine { end: end @ End::Unjailed { layer, .. }, .. } => {
            let error = EngineError::new(Kind::Unavailable, "cannot start the machine");
            Err(error.because(end.to_string()).hint(without(layer)))
        }
        Ending::Machine { end, phase: Phase::Up } => killed(end.to_string()),
        Ending::Machine { end, .. } => Err(guest(not_started).because(end.to_string()).hint(CONSOLE)),
        Ending::Misbehaved(why) => {
            Err(guest("the guest's agent broke the protocol; its machine was ended").because(why))
        }
        Ending::Silent { waiting: Waiting::Still, limit } => killed(format!(
            "the guest did not stand still or go on within {} s; its machine was ended",
            limit.as_secs()
        )),
        Ending::Silent { waiting: Waiting::Signal, limit } => killed(format!(
            "the guest did not take a signal within {} s; its machine was ended",
            limit.as_secs()
        )),
        Ending::Silent { waiting, limit } => {
            let what = if waiting == Waiting::Hello {
                "the guest's agent did not answer"
            } else {
                "the process was not started"
            };
            let cause = format!("nothing was heard for {} s; the machine was ended", limit.as_secs());
            Err(guest(what)
                .because(cause)
                .hint(format!("{CONSOLE}; {START_TIMEOUT} sets the seconds to wait")))
        }
        Ending::Interrupted(signal) => {
            let code = u8::try_from(128 + signal).unwrap_or(KILLED);
            Ok(Exit::new(code, now()).because("broken off before it had started"))
        }
        Ending::Insisted => {
            killed("the process did not end at three signals; its machine was ended".to_owned())
        }
        Ending::HungUp { phase: Phase::Up } => {
            killed("the guest's agent hung up; its machine was ended".to_owned())
        }
        Ending::HungUp { .. } => Err(guest(not_started).because("the guest's agent hung up").hint(CONSOLE)),
    }
}

const CONSOLE: &str = "--console shows what the guest's kernel says";

#[cfg(test)]
mod tests;
