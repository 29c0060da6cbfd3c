// SPDX-License-Identifier: Apache-2.0
//! The threads that vCPUs run on. A vCPU is moved into its thread by `start` and comes back from `stop`.
//!
//! ```text
//!   vCPUs at rest ──start──► a thread each, in KVM_RUN ──stop: a flag, and a signal that ends KVM_RUN──► at rest
//!                                   └── the guest ends: told once, over `Ends`; the thread is done
//! ```
//!
//! The signal is blocked everywhere but inside KVM_RUN, so none is lost between two of them; and KVM finishes what
//! a guest's instruction began before it looks at signals, so a vCPU at rest is always between two instructions.

use crate::raw;
use crate::vcpu::{self, Surroundings};
use crate::wire::End;
use isopod_devices::virtio::worker::STACK;
use isopod_sys::signal::{self, AllBlocked, SIGUSR1};
use kvm_ioctls::VcpuFd;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::write;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

pub(crate) const KICK: i32 = SIGUSR1;

/// Where a vCPU tells the guest's end.
#[derive(Debug)]
pub(crate) struct Ends {
    to: SyncSender<End>,
    from: Receiver<End>,
    bell: Arc<OwnedFd>,
    told: Arc<AtomicBool>,
}

impl Ends {
    /// For as many vCPUs.
    pub(crate) fn new(vcpus: usize) -> io::Result<Self> {
        let (to, from) = sync_channel(vcpus);
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        Ok(Self { to, from, bell, told: Arc::default() })
    }

    /// Whether the guest has ended.
    pub(crate) fn are_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    /// The first that was told.
    pub(crate) fn first(&self) -> Option<End> {
        self.from.try_recv().ok()
    }
}

/// Readable once an end was told.
impl AsFd for Ends {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// vCPUs that run.
#[derive(Debug)]
pub(crate) struct Crew {
    threads: Vec<JoinHandle<VcpuFd>>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    pub(crate) fn start(vcpus: Vec<VcpuFd>, around: &Surroundings, ends: &Ends) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(vcpus.len());
        for (id, mut vcpu) in vcpus.into_iter().enumerate() {
            let (around, stop) = (around.clone(), Arc::clone(&stop));
            let (to, bell, told) = (ends.to.clone(), Arc::clone(&ends.bell), Arc::clone(&ends.told));
            threads.push(Builder::new().name(format!("vcpu{id}")).stack_size(STACK).spawn(move || {
                if let Some(end) = begin(&mut vcpu, &around, &stop) {
                    told.store(true, Ordering::SeqCst);
                    // There is room for one of each, and the receiver outlives us or nobody wants to know.
                    let _ = to.try_send(end);
                    let _ = write(&bell, &1u64.to_ne_bytes());
                }
                vcpu
            })?);
        }
        Ok(Self { threads, stop })
    }

    /// Waits until every vCPU is between two instructions.
    pub(crate) fn stop(self) -> io::Result<Vec<VcpuFd>> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in &self.threads {
            signal::send_to(thread, KICK)?;
        }
        let join = |thread: JoinHandle<_>| thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
        Ok(self.threads.into_iter().map(join).collect())
    }
}

fn begin(vcpu: &mut VcpuFd, around: &Surroundings, stop: &AtomicBool) -> Option<End> {
    let failed = |what: &str, e: &dyn Display| Some(End::Failed { message: format!("{what}: {e}") });
    // Never unblocked in this thread again, but by KVM_RUN.
    let _blocked = match AllBlocked::new() {
        Ok(blocked) => blocked,
        Err(e) => return failed("cannot block signals", &e),
    };
    match raw::let_through(vcpu, KICK) {
        Ok(()) => vcpu::run(vcpu, around, stop),
        Err(e) => failed("KVM takes no signal mask", &e),
    }
}
