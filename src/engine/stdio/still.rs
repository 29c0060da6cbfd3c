// SPDX-License-Identifier: Apache-2.0
//! Standing still: what others may ask of the one who owns a container.
//!
//! ```text
//!   pause, unpause: the machine's vCPUs and devices stop and go on; the guest does not know
//!
//!   snapshot:  Moving ──Freeze──► Asked ──Frozen──► Still: the machine is stopped, saved, goes on ──Thaw──► Thawing
//!                ▲                  │ cannot                                                                   │
//!                └──────────────────┴───────────────────────────────◄── Thawed ────────────────────────────────┘
//! ```
//!
//! From Freeze on nothing is said to the agent, whatever comes up meanwhile: it waits behind a barrier, and the agent of a
//! copy never hears of it.

use super::begin::realtime_ns;
use super::{Ending, Session};
use crate::agent::{Phase, Stillness, Talk};
use crate::container::control::{Answer, Ask, Wanted};
use crate::container::name::random;
use crate::container::records::Record;
use crate::error::{EngineError, Kind};
use crate::machine::{Refusal, Watched};
use crate::template::Greeting;
use isopod_protocol::FromHost;
use isopod_protocol::frame::put_from_host;
use isopod_protocol::message::Thaw;
use isopod_vmm::End;
use isopod_vmm::envelope::Identity;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::time::Instant;

/// Bytes of entropy a machine gets for each life.
pub(super) const ENTROPY: usize = 32;

/// What a snapshot says of its container, beside what its machine is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Portrait {
    pub(crate) record: Record,
    pub(crate) greeting: Greeting,
    pub(crate) talk: Talk,
}

/// What a container's snapshots are written with.
#[derive(Debug, Clone)]
pub(crate) struct Saving {
    pub(crate) identity: Identity,
    pub(crate) record: Record,
    pub(crate) greeting: Greeting,
}

/// What happened that others are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Up,
    Paused,
    Unpaused,
}

/// What others have made of a container's going.
#[derive(Debug)]
pub(super) enum Standing {
    Going,
    Paused,
    Saving(Snapshot),
}

impl Standing {
    pub(super) fn is_saving(&self) -> bool {
        matches!(self, Self::Saving(_))
    }

    /// How much of what there is to send may be sent, if not all.
    pub(super) fn barrier(&self) -> Option<usize> {
        match self {
            Self::Saving(snapshot) => Some(snapshot.barrier),
            Self::Going | Self::Paused => None,
        }
    }

    /// So much less is there to send.
    pub(super) fn sent(&mut self, n: usize) {
        if let Self::Saving(snapshot) = self {
            snapshot.barrier -= n;
        }
    }
}

/// A snapshot under way.
#[derive(Debug)]
pub(super) struct Snapshot {
    file: File,
    /// How much there was to send up to the Freeze, and with it.
    barrier: usize,
    /// Since when the agent is waited for.
    pub(super) since: Instant,
    /// What there is to tell the client in the end.
    answer: Answer,
}

/// A message that makes a machine that may be a copy somebody of its own.
pub(crate) fn thaw(copy: bool) -> Thaw {
    Thaw { realtime_ns: realtime_ns(), entropy: random::<ENTROPY>().to_vec(), copy, ..Thaw::default() }
}

impl Session<'_> {
    /// Somebody asks for something.
    pub(super) fn take_wish(&mut self, machine: &mut dyn Watched) -> Option<Ending> {
        let Wanted { ask, file } = self.control.as_mut()?.hear()?;
        let done = match (ask, file) {
            (Ask::Pause, _) => self.pause(machine),
            (Ask::Unpause, _) => self.unpause(machine),
            (Ask::Snapshot, Some(file)) => match self.begin_snapshot(file) {
                Ok(()) => return None,
                Err(error) => Err(Refused::Because(error)),
            },
            (Ask::Snapshot, None) => {
                Err(Refused::Because(EngineError::new(Kind::Invalid, "there is no file to write to")))
            }
        };
        let (answer, ending) = match done {
            Ok(()) => (Answer::Done, None),
            Err(Refused::Because(error)) => (error.into(), None),
            Err(Refused::Ended(ending)) => (self.gone().into(), Some(ending)),
        };
        self.answer(answer);
        ending
    }

    fn answer(&mut self, answer: Answer) {
        if let Some(control) = &mut self.control {
            control.answer(answer);
        }
    }

    fn pause(&mut self, machine: &mut dyn Watched) -> Result<(), Refused> {
        self.must_run("be paused")?;
        machine.pause(None).map_err(|refusal| self.refused(refusal))?;
        self.standing = Standing::Paused;
        self.told.push(Told::Paused);
        Ok(())
    }

    fn unpause(&mut self, machine: &mut dyn Watched) -> Result<(), Refused> {
        if !matches!(self.standing, Standing::Paused) {
            return Err(Refused::Because(EngineError::new(Kind::Conflict, "the container is not paused")));
        }
        machine.resume(None).map_err(|refusal| self.refused(refusal))?;
        self.standing = Standing::Going;
        self.told.push(Told::Unpaused);
        self.forgive_delays();
        Ok(())
    }

    /// The time that a container stood still is nobody's delay.
    fn forgive_delays(&mut self) {
        self.signalled.iter_mut().for_each(|at| *at = Instant::now());
    }

    fn must_run(&self, to: &str) -> Result<(), Refused> {
        let moving = self.conversation.stillness() == Stillness::Moving;
        let why = match (&self.standing, self.conversation.phase()) {
            (Standing::Going, Phase::Up) if moving => return Ok(()),
            (Standing::Paused, _) => "it is paused",
            (_, Phase::Up) => "it is being saved, or not itself yet",
            _ => "its process does not run",
        };
        let what = format!("the container can't {to}: {why}");
        Err(Refused::Because(EngineError::new(Kind::Conflict, what)))
    }

    fn begin_snapshot(&mut self, file: File) -> Result<(), EngineError> {
        if let Err(Refused::Because(error)) = self.must_run("be saved") {
            return Err(error);
        }
        if self.saving.is_none() {
            return Err(EngineError::new(
                Kind::Unsupported,
                "the container can't be saved: its machine was booted",
            )
            .because("only one that was started from a template can: without --no-template and --console"));
        }
        // A word of five bytes is not too long.
        let _ = put_from_host(&mut self.to_agent, &FromHost::freeze());
        self.conversation.freeze_sent();
        let barrier = self.to_agent.len();
        self.standing =
            Standing::Saving(Snapshot { file, barrier, since: Instant::now(), answer: Answer::Done });
        Ok(())
    }

    /// The agent has said something: goes on with the snapshot, if there is one and it was that.
    pub(super) fn go_on_with_snapshot(&mut self, machine: &mut dyn Watched) -> Option<Ending> {
        let Standing::Saving(snapshot) = &mut self.standing else {
            return None;
        };
        match self.conversation.stillness() {
            Stillness::Still => {
                let ending = self.save(machine).err();
                if let Some(Ending::Machine { end, .. }) = &ending {
                    let what = "the container could not be saved, and has ended of it";
                    self.answer(EngineError::new(Kind::Guest, what).because(end.to_string()).into());
                }
                return ending;
            }
            Stillness::Moving => {
                let answer = match self.conversation.take_freeze_failure() {
                    Some(why) => {
                        EngineError::new(Kind::Guest, "the container can't be saved").because(why).into()
                    }
                    None => snapshot.answer.clone(),
                };
                self.standing = Standing::Going;
                self.forgive_delays();
                self.answer(answer);
            }
            Stillness::Asked | Stillness::Thawing => {}
        }
        None
    }

    /// All of it stands still: writes it down and lets it go on, whether it could be written or not. A machine that
    /// cannot stop or go on with its agent at the mailbox has a guest that waits for ever.
    fn save(&mut self, machine: &mut dyn Watched) -> Result<(), Ending> {
        machine.pause(Some(self.mailbox)).map_err(|refusal| self.lost(refusal))?;
        let answer = match self.write(machine) {
            Ok(()) => Answer::Done,
            Err(Refused::Because(error)) => error.into(),
            Err(Refused::Ended(ending)) => return Err(ending),
        };
        // Only now: the time is in it.
        let mut words = Vec::new();
        let _ = put_from_host(&mut words, &FromHost::thaw(thaw(false)));
        machine.resume(Some(&words)).map_err(|refusal| self.lost(refusal))?;
        self.conversation.thaw_sent();
        if let Standing::Saving(snapshot) = &mut self.standing {
            (snapshot.answer, snapshot.since) = (answer, Instant::now());
        }
        Ok(())
    }

    fn write(&mut self, machine: &mut dyn Watched) -> Result<(), Refused> {
        let (Some(saving), Standing::Saving(snapshot)) = (&self.saving, &self.standing) else {
            return Ok(());
        };
        let talk = self.conversation.talk();
        let portrait = Portrait { record: saving.record.clone(), greeting: saving.greeting.clone(), talk };
        let extra = serde_json::to_value(portrait)
            .map_err(|e| Refused::Because(EngineError::io("cannot describe the container")(e)))?;
        let identity = Identity { extra, ..saving.identity.clone() };
        machine.save(&snapshot.file, &identity).map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> Refused {
        match refusal {
            Refusal::Refused(why) => {
                Refused::Because(EngineError::new(Kind::Io, "the machine can't do that").because(why))
            }
            Refusal::Ended(_) => Refused::Ended(self.lost(refusal)),
        }
    }

    fn lost(&self, refusal: Refusal) -> Ending {
        let end = match refusal {
            Refusal::Ended(end) => end,
            Refusal::Refused(message) => End::Failed { message },
        };
        Ending::Machine { end, phase: self.conversation.phase() }
    }

    fn gone(&self) -> EngineError {
        EngineError::new(Kind::Guest, "the container has ended")
    }
}

/// Why a wish was not fulfilled.
enum Refused {
    Because(EngineError),
    Ended(Ending),
}
