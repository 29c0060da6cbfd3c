// SPDX-License-Identifier: Apache-2.0
//! The threads that vCPUs run on. A vCPU is moved to its thread by `start` and comes back from `stop`.
//!
//! ```text
//!   vCPUs at rest ──start──► a thread each, in KVM_RUN ──stop: a flag, and a signal that ends KVM_RUN──► at rest
//!                                   └── the guest ends: told once, over `Ends`; the vCPU rests
//! ```
//!
//! The signal is blocked everywhere but inside KVM_RUN, so none is lost between two of them; and KVM finishes what
//! a guest's instruction began before it looks at signals, so a vCPU at rest is always between two instructions.

use crate::calls;
use crate::raw;
use crate::vcpu::{self, Surroundings};
use crate::wire::End;
use isopod_devices::virtio::worker::STACK;
use isopod_sys::confined::{self, Closing};
use isopod_sys::signal::{self, AllBlocked, SIGUSR1};
use kvm_ioctls::VcpuFd;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::write;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

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

    fn teller(&self) -> Teller {
        Teller { to: self.to.clone(), bell: Arc::clone(&self.bell), told: Arc::clone(&self.told) }
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

/// A vCPU's way there.
#[derive(Debug)]
struct Teller {
    to: SyncSender<End>,
    bell: Arc<OwnedFd>,
    told: Arc<AtomicBool>,
}

impl Teller {
    fn tell(&self, end: End) {
        self.told.store(true, Ordering::SeqCst);
        // There is room for one of each, and the receiver outlives us or nobody wants to know.
        let _ = self.to.try_send(end);
        let _ = write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// Readable once an end was told.
impl AsFd for Ends {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// A thread a vCPU. They are there before the guest runs, and for as long as the machine: starting and stopping makes none.
#[derive(Debug)]
pub(crate) struct Crew {
    members: Vec<Member>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Member {
    thread: JoinHandle<()>,
    orders: SyncSender<VcpuFd>,
    returns: Receiver<VcpuFd>,
}

impl Crew {
    /// For as many vCPUs; `confined`, each has no system calls but those it needs, once it has said so.
    pub(crate) fn new(
        vcpus: usize,
        around: &Surroundings,
        ends: &Ends,
        confined: bool,
    ) -> io::Result<(Self, Vec<Closing>)> {
        let stop = Arc::new(AtomicBool::new(false));
        let member = |id| Member::new(id, around.clone(), (ends.teller(), Arc::clone(&stop)), confined);
        let members = (0..vcpus).map(member).collect::<io::Result<Vec<_>>>()?;
        let (members, closing) = members.into_iter().unzip();
        Ok((Self { members, stop }, closing))
    }

    pub(crate) fn start(&self, vcpus: Vec<VcpuFd>) -> io::Result<()> {
        self.stop.store(false, Ordering::SeqCst);
        for (member, vcpu) in self.members.iter().zip(vcpus) {
            member.orders.send(vcpu).map_err(|_| gone())?;
        }
        Ok(())
    }

    /// Waits until every vCPU is between two instructions.
    pub(crate) fn stop(&self) -> io::Result<Vec<VcpuFd>> {
        self.stop.store(true, Ordering::SeqCst);
        for member in &self.members {
            signal::send_to(&member.thread, KICK)?;
        }
        self.members.iter().map(|member| member.returns.recv().map_err(|_| gone())).collect()
    }
}

fn gone() -> io::Error {
    io::Error::other("a vCPU's thread is gone")
}

impl Member {
    fn new(
        id: usize,
        around: Surroundings,
        (teller, stop): (Teller, Arc<AtomicBool>),
        confined: bool,
    ) -> io::Result<(Self, Closing)> {
        let (orders, ordered) = sync_channel::<VcpuFd>(1);
        let (give_back, returns) = sync_channel(1);
        let body = move || {
            for mut vcpu in ordered {
                if let Some(end) = begin(&mut vcpu, &around, &stop) {
                    teller.tell(end);
                }
                if give_back.send(vcpu).is_err() {
                    return;
                }
            }
        };
        // The thread takes its mask from this one: never unblocked there, but by KVM_RUN.
        let _blocked = AllBlocked::new()?;
        let rules = confined.then(|| calls::VCPU.to_vec());
        let (thread, closing) = confined::spawn(&format!("vcpu{id}"), STACK, rules, body)?;
        Ok((Self { thread, orders, returns }, closing))
    }
}

fn begin(vcpu: &mut VcpuFd, around: &Surroundings, stop: &AtomicBool) -> Option<End> {
    match raw::let_through(vcpu, KICK) {
        Ok(()) => vcpu::run(vcpu, around, stop),
        Err(e) => Some(End::Failed { message: format!("KVM takes no signal mask: {e}") }),
    }
}
