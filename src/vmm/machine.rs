// SPDX-License-Identifier: Apache-2.0
//! A machine's life between its assembly and its end.
//!
//! ```text
//!                 resume (the mailbox filled, devices, then vCPUs)
//!     still ─────────────────────────────────────────────────────► running
//!       ▲                                                             │
//!       └────────────── pause (vCPUs, then devices) ──────────────────┘
//!       └─ save: state and memory into a file
//! ```
//!
//! What runs is moved into its threads by `resume` and comes back by `pause`, so that there is nothing to save from but
//! what stands still.

use crate::arch::state::{self, StateError};
use crate::assemble::{Assembled, Still};
use crate::calls;
use crate::crew::{Crew, Ends};
use crate::envelope::{self, Identity, SealError};
use crate::mailbox::{self, DeliverError, Mailbox};
use crate::saved::MachineState;
use crate::touched::{self, TouchedError};
use crate::wire::Counters;
use isopod_devices::virtio::worker::STACK;
use isopod_devices::virtio::{SaveError, StartError};
use isopod_sys::confined::{self, Closing};
use kvm_ioctls::VcpuFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io;
use std::mem;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long an agent may take to come to its mailbox once it has said that it will.
const TO_MAILBOX: Duration = Duration::from_secs(20);
/// It is likely in a timer interrupt, which takes a few milliseconds where KVM emulates.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

#[derive(Debug, Error)]
pub(crate) enum MachineError {
    #[error("the machine does not stand still")]
    Running,
    #[error("the machine does not run")]
    NotRunning,
    #[error("the agent does not come to wait at its mailbox")]
    NotWaiting,
    #[error("a machine with a serial console cannot be saved")]
    Console,
    #[error("cannot stop or start a vCPU's thread")]
    Threads(#[source] io::Error),
    #[error("cannot start a device")]
    Device(#[from] StartError),
    #[error("cannot save a device")]
    SaveDevice(#[from] SaveError),
    #[error("cannot save the processors")]
    Processors(#[from] StateError),
    #[error(transparent)]
    Mailbox(#[from] DeliverError),
    #[error("cannot encode the machine's state")]
    Encode(#[from] postcard::Error),
    #[error("cannot write the machine's file")]
    Seal(#[from] SealError),
}

#[derive(Debug)]
enum Phase {
    Still(Vec<VcpuFd>),
    Running,
    /// A thread could not be started or stopped: there is nothing to go on with.
    Lost,
}

#[derive(Debug)]
pub(crate) struct Machine {
    phase: Phase,
    crew: Crew,
    pub(crate) ends: Ends,
    /// Where the agent waits, while it does.
    mailbox: Option<Mailbox>,
    still: Still,
}

impl Machine {
    /// With the threads it will have for as long as it lives; `confined`, none has system calls but those it needs, once it
    /// has said so.
    pub(crate) fn new(assembled: Assembled, confined: bool) -> Result<(Self, Vec<Closing>), MachineError> {
        let Assembled { vcpus, mailbox, still } = assembled;
        let ends = Ends::new(vcpus.len()).map_err(MachineError::Threads)?;
        let (crew, mut closing) =
            Crew::new(vcpus.len(), &still.around, &ends, confined).map_err(MachineError::Threads)?;
        for mut transport in still.around.bus.transports() {
            closing.extend(transport.man(confined)?);
        }
        Ok((Self { phase: Phase::Still(vcpus), crew, ends, mailbox, still }, closing))
    }

    /// Stops everything; with the address of a mailbox, once the agent waits there.
    pub(crate) fn pause(&mut self, mailbox: Option<u64>) -> Result<(), MachineError> {
        let deadline = Instant::now() + TO_MAILBOX;
        loop {
            let vcpus = self.stop_vcpus()?;
            let found = mailbox.and_then(|at| mailbox::find(&vcpus, &self.still.around.memory, at));
            let there = mailbox.is_none() || found.is_some();
            self.phase = Phase::Still(vcpus);
            if there {
                self.mailbox = found;
                self.still.around.bus.transports().for_each(|mut transport| transport.pause());
                return Ok(());
            }
            if self.ends.are_told() {
                return Err(MachineError::NotWaiting);
            }
            self.start_vcpus()?;
            if Instant::now() > deadline {
                return Err(MachineError::NotWaiting);
            }
            // Not asleep: a sleep that was interrupted by a stop goes on with another system call, which is on no list.
            let _ = poll(&mut [PollFd::new(&self.ends, PollFlags::IN)], Some(&LOOK_AGAIN));
        }
    }

    /// Goes on, after `bytes` were put into the mailbox, if there are any.
    pub(crate) fn resume(&mut self, bytes: Option<&[u8]>) -> Result<(), MachineError> {
        if !matches!(self.phase, Phase::Still(_)) {
            return Err(MachineError::Running);
        }
        if let Some(bytes) = bytes {
            let mailbox = self.mailbox.as_ref().ok_or(DeliverError::NotWaiting)?;
            mailbox.fill(&self.still.around.memory, bytes)?;
            self.mailbox = None;
        }
        for mut transport in self.still.around.bus.transports() {
            transport.resume()?;
        }
        self.start_vcpus()
    }

    /// Writes all there is to know into `file`; the machine stands still before and after.
    pub(crate) fn save(&self, file: &File, identity: &Identity) -> Result<(), MachineError> {
        let Phase::Still(vcpus) = &self.phase else {
            return Err(MachineError::Running);
        };
        let Still { around, vm, kvm, .. } = &self.still;
        if around.bus.has_console() {
            return Err(MachineError::Console);
        }
        state::check_extended(kvm)?;
        let msrs = state::msrs_of(kvm)?;
        let devices = around.bus.transports().map(|transport| transport.save());
        let state = MachineState {
            devices: devices.collect::<Result<_, _>>()?,
            chips: state::save_chips(vm)?,
            vcpus: vcpus.iter().map(|vcpu| state::save(vcpu, &msrs)).collect::<Result<_, _>>()?,
            mailbox: self.mailbox.clone(),
            open: around.bus.slots().open(),
        };
        let state = postcard::to_stdvec(&state)?;
        envelope::seal(file, identity, &state, &around.memory)?;
        Ok(())
    }

    /// A thread that maps the pages that a start touches, beside the guest that is about to touch them, once it is sent word.
    /// Without it each is mapped when it is touched.
    pub(crate) fn mapper(&mut self, confined: bool) -> Option<(SyncSender<()>, Closing)> {
        let list = touched::read(&self.still.touched.take()?);
        let memory = self.still.around.memory.clone();
        let (word, given) = sync_channel(1);
        let body = move || {
            let _ = given.recv().map(|()| touched::map(&memory, &list));
        };
        let rules = confined.then(|| calls::PAGES.to_vec());
        let (_, closing) = confined::spawn("pages", STACK, rules, body).ok()?;
        Some((word, closing))
    }

    /// Writes down which pages of its memory were touched so far.
    pub(crate) fn record_touched(&self, pagemap: &File, list: &mut File) -> Result<(), TouchedError> {
        touched::record(&self.still.around.memory, pagemap, list)
    }

    pub(crate) fn count(&self) -> Counters {
        let mut counters = Counters::default();
        self.still.stats.iter().for_each(|stats| stats.add_to(&mut counters));
        let requests = self.still.image_counters.snapshot().requests;
        counters.image_requests = requests.iter().map(|(_, count)| count).sum();
        counters
    }

    /// Whether a thread could not be started or stopped.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.phase, Phase::Lost)
    }

    fn stop_vcpus(&mut self) -> Result<Vec<VcpuFd>, MachineError> {
        match self.phase {
            Phase::Running => {
                self.phase = Phase::Lost;
                self.crew.stop().map_err(MachineError::Threads)
            }
            Phase::Still(_) | Phase::Lost => Err(MachineError::NotRunning),
        }
    }

    fn start_vcpus(&mut self) -> Result<(), MachineError> {
        match mem::replace(&mut self.phase, Phase::Lost) {
            Phase::Still(vcpus) => {
                self.crew.start(vcpus).map_err(MachineError::Threads)?;
                self.phase = Phase::Running;
                Ok(())
            }
            other => {
                self.phase = other;
                Err(MachineError::Running)
            }
        }
    }
}
