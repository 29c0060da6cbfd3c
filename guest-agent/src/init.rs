// SPDX-License-Identifier: Apache-2.0
//! A small init inside the container (`--init`): passes signals on to the process, reaps orphans, ends as it ends.

use crate::child::{self, Plan, Settled};
use crate::credentials;
use crate::failure::{Doing, Failure};
use isopod_sys::process::{Child, Namespaces, OneThread, kill};
use isopod_sys::signal::{self, SIGCHLD, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::AsFd;
use rustix::process::{DumpableBehavior, Pid, WaitOptions, WaitStatus, set_dumpable_behavior, wait};
use std::convert::Infallible;
use std::mem::forget;

/// What a shell says of a process that this signal has ended.
const BY_SIGNAL: i32 = 128;

/// A process with its init.
#[derive(Debug)]
pub(crate) struct Init {
    process: Child,
    signals: SignalFd,
    one: OneThread,
}

impl Init {
    /// Starts the process from this one, which is pid 1 of the container and has its rights from here on.
    pub(crate) fn start(plan: Plan<'_>, settled: &Settled, mut one: OneThread) -> Result<Self, Failure> {
        let signals = SignalFd::all().doing("block", "signals")?;
        child::give_streams(plan, settled)?;
        credentials::confine(plan.container, &settled.identity)?;
        credentials::shed(plan.container, &settled.identity)?;
        // The container's processes have no business in what is left here of the agent's memory.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).doing("protect", "the init")?;
        let program = || match begin(plan, settled) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let (process, failure) = one.spawn_shared(Namespaces::NONE, program).doing("make", "a process")?;
        match failure {
            Some(failure) => Err(failure),
            None => Ok(Self { process, signals, one }),
        }
    }

    /// Until the process ends; gives the code to end with. Only the kernel's calls are left to fail here, and none does.
    pub(crate) fn watch(self) -> i32 {
        let Self { process: Child { pid, pidfd }, signals, mut one } = self;
        forget(pidfd);
        // The agent's line to the host is among them.
        if one.close_all_but(signals.as_fd()).is_err() {
            return BY_SIGNAL;
        }
        loop {
            let mut fds = [PollFd::new(&signals, PollFlags::IN)];
            let _ = poll(&mut fds, None);
            while let Ok(Some(number)) = signals.read() {
                if number == SIGCHLD {
                    if let Some(code) = reap(pid) {
                        return code;
                    }
                } else {
                    let _ = kill(pid, number);
                }
            }
        }
    }
}

fn begin(plan: Plan<'_>, settled: &Settled) -> Result<Infallible, Failure> {
    signal::reset().doing("reset", "signals")?;
    child::take_streams(plan, settled)?;
    Err(child::become_program(plan, settled))
}

/// Waits for whoever has ended; gives the process's code if it is among them.
fn reap(process: Pid) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == process {
            code = Some(code_of(status));
        }
    }
    code
}

fn code_of(status: WaitStatus) -> i32 {
    status.exit_status().or(status.terminating_signal().map(|n| n + BY_SIGNAL)).unwrap_or(BY_SIGNAL)
}
