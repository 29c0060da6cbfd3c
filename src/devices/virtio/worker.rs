// SPDX-License-Identifier: Apache-2.0
//! The loop over a device's queues, written once: one thread, one epoll, until it is told to stop.
//!
//! ```text
//!              start                 kick, or a watched descriptor
//!    (Bound) ────────► waiting ◄───────────────────────────────────► Handler::wake
//!       ▲               │   ▲                                             │ Broken
//!   at rest             │   └─ never by itself ─ needs reset: deaf to all ◄┘
//!       ▲          stop │                        but stop
//!       └───────────────┴── (Handler, Vec<BoundQueue>) given back
//! ```
//!
//! The thread is there before the guest runs, and for as long as the device: a driver that comes and goes a thousand
//! times makes no thread, and the vCPU on whose behalf a device starts or stops needs no leave to make one.
//!
//! A guest can keep a queue full for ever; so a wake serves at most as many chains as the ring is long before the
//! other queues have their turn, and no chain is popped once a stop was asked for.

mod calls;
mod port;

pub use port::Port;
pub use vmm_sys_util::epoll::EventSet;

use super::chain::Broken;
use super::{Bound, BoundQueue, StartError};
use isopod_sys::confined::{self, Closing};
use isopod_sys::seccomp::Rule;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use std::fmt::Debug;
use std::mem;
use std::os::fd::OwnedFd;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// A thread's stack, in bytes. With the 2 MiB that are usual, each one costs a page of page tables more.
pub const STACK: usize = 256 << 10;

/// Why a handler is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The driver put something into this queue (or may have: a wake without cause is possible).
    Kick(usize),
    /// A descriptor the handler watches is ready for this.
    Ready { token: u32, events: EventSet },
}

/// What a device does with its queues. It lives on the worker's thread between start and stop.
pub trait Handler: Debug + Send + 'static {
    /// What it asks of the host's kernel, beside what each worker does.
    const CALLS: &'static [Rule];

    /// The device now runs: the place to watch descriptors and to publish what waited for a driver.
    fn begin(&mut self, _port: &mut Port) -> Result<(), Broken> {
        Ok(())
    }

    fn wake(&mut self, wake: Wake, port: &mut Port) -> Result<(), Broken>;
}

/// A device's handler: here while there is no driver, with its worker while there is one.
#[derive(Debug)]
pub enum Engine<H: Handler> {
    /// With the thread that waits for a driver, once it was made.
    Idle(H, Option<Worker<H>>),
    Running(Worker<H>),
    /// Only while one becomes the other.
    Lost,
}

impl<H: Handler> Engine<H> {
    pub fn new(handler: H) -> Self {
        Self::Idle(handler, None)
    }

    /// Makes the thread, which has no system calls but those it needs if it is to be `confined`; none if it is there already.
    /// Without this it is made, unconfined, by the first start.
    pub fn man(&mut self, device: &'static str, confined: bool) -> Result<Option<Closing>, StartError> {
        let Self::Idle(_, absent @ None) = self else { return Ok(None) };
        let (worker, closing) = Worker::new(device, confined)?;
        *absent = Some(worker);
        Ok(Some(closing))
    }

    pub fn start(&mut self, device: &'static str, bound: Bound) -> Result<(), StartError> {
        // One that is made now is not confined: there is nothing to wait for.
        self.man(device, false)?;
        match mem::replace(self, Self::Lost) {
            Self::Idle(handler, Some(worker)) => {
                worker.start(handler, bound);
                *self = Self::Running(worker);
                Ok(())
            }
            other => {
                *self = other;
                Err(StartError::NotIdle { device })
            }
        }
    }

    /// The handler, while it is at rest.
    pub fn idle(&self) -> Option<&H> {
        match self {
            Self::Idle(handler, _) => Some(handler),
            Self::Running(_) | Self::Lost => None,
        }
    }

    pub fn idle_mut(&mut self) -> Option<&mut H> {
        match self {
            Self::Idle(handler, _) => Some(handler),
            Self::Running(_) | Self::Lost => None,
        }
    }

    /// Gives the queues back; none if it did not run.
    pub fn stop(&mut self) -> Vec<BoundQueue> {
        match mem::replace(self, Self::Lost) {
            Self::Running(worker) => {
                let (worker, handler, queues) = worker.stop();
                *self = Self::Idle(handler, Some(worker));
                queues
            }
            other => {
                *self = other;
                Vec::new()
            }
        }
    }
}

/// A device's thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Worker<H> {
    thread: JoinHandle<()>,
    orders: SyncSender<(H, Bound)>,
    returns: Receiver<(H, Vec<BoundQueue>)>,
    stop: Arc<Stop>,
}

#[derive(Debug)]
struct Stop {
    asked: AtomicBool,
    event: OwnedFd,
}

impl<H: Handler> Worker<H> {
    fn new(device: &'static str, confined: bool) -> Result<(Self, Closing), StartError> {
        let wait = |op| move |source| StartError::Wait { device, op, source };
        let event = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| wait("eventfd")(e.into()))?;
        let stop = Arc::new(Stop { asked: AtomicBool::new(false), event });
        let (orders, ordered) = sync_channel::<(H, Bound)>(1);
        let (give_back, returns) = sync_channel(1);
        let asked = Arc::clone(&stop);
        let body = move || {
            for (handler, bound) in ordered {
                if give_back.send(run(bound, handler, &asked)).is_err() {
                    return;
                }
            }
        };
        let (thread, closing) = confined::spawn(device, STACK, confined.then(rules::<H>), body)
            .map_err(|source| StartError::Thread { device, source })?;
        Ok((Self { thread, orders, returns, stop }, closing))
    }

    fn start(&self, handler: H, bound: Bound) {
        // It waits for an order unless it is gone, which the stop finds out.
        let _ = self.orders.send((handler, bound));
    }

    /// Ends the loop after the chain in hand, and waits for it.
    fn stop(self) -> (Self, H, Vec<BoundQueue>) {
        self.stop.asked.store(true, Ordering::SeqCst);
        if let Err(error) = write(&self.stop.event, &1u64.to_ne_bytes()) {
            tracing::debug!(%error, "a stop event was not counted");
        }
        let Ok((handler, queues)) = self.returns.recv() else {
            let end = self.thread.join().err().unwrap_or_else(|| Box::new("a worker is gone"));
            panic::resume_unwind(end);
        };
        (self, handler, queues)
    }
}

/// What is left to a device's thread.
pub(crate) fn rules<H: Handler>() -> Vec<Rule> {
    [calls::CALLS, H::CALLS].concat()
}

/// From an order to a stop.
fn run<H: Handler>(bound: Bound, mut handler: H, stop: &Arc<Stop>) -> (H, Vec<BoundQueue>) {
    let mut port = Port::new(bound, Arc::clone(stop));
    if let Err(broken) = serve_all(&mut port, &mut handler) {
        tracing::debug!(%broken, "a device asks for a reset");
        port.interrupt().needs_reset();
        port.wait_for_stop();
    }
    stop.forget();
    (handler, port.into_queues())
}

impl Stop {
    /// What was asked for is done.
    fn forget(&self) {
        // The one who asks says so first and rings then: without the ring there is nothing to take.
        if let Err(error) = read(&self.event, &mut [0u8; 8]) {
            tracing::debug!(%error, "a stop without its event");
        }
        self.asked.store(false, Ordering::SeqCst);
    }
}

/// Gives `Ok` when it was told to stop.
fn serve_all(port: &mut Port, handler: &mut impl Handler) -> Result<(), Broken> {
    port.listen()?;
    handler.begin(port)?;
    // Kicks from before the start are not lost with an eventfd, but a restored ring may hold chains without one.
    for queue in 0..port.queues() {
        handler.wake(Wake::Kick(queue), port)?;
    }
    let mut wakes = Vec::new();
    while port.wait(&mut wakes)? {
        for wake in wakes.drain(..) {
            handler.wake(wake, port)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
