// SPDX-License-Identifier: Apache-2.0
//! The loop over a device's queues, written once: one thread, one epoll, until it is told to stop.
//!
//! ```text
//!              start                 kick, or a watched descriptor
//!    (Bound) ────────► waiting ◄───────────────────────────────────► Handler::wake
//!                       │   ▲                                             │ Broken
//!                  stop │   └─ never by itself ─ needs reset: deaf to all ◄┘
//!                       ▼                        but stop
//!             (Handler, Vec<BoundQueue>)
//! ```
//!
//! A guest can keep a queue full for ever; so a wake serves at most as many chains as the ring is long before the
//! other queues have their turn, and no chain is popped once a stop was asked for.

mod port;

pub use port::Port;
pub use vmm_sys_util::epoll::EventSet;

use super::chain::Broken;
use super::{Bound, BoundQueue, StartError};
use std::fmt::Debug;
use std::mem;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

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
    /// The device now runs: the place to watch descriptors and to publish what waited for a driver.
    fn begin(&mut self, _port: &mut Port) -> Result<(), Broken> {
        Ok(())
    }

    fn wake(&mut self, wake: Wake, port: &mut Port) -> Result<(), Broken>;
}

/// A device's handler: here while there is no driver, with its worker while there is one.
#[derive(Debug)]
pub enum Engine<H: Handler> {
    Idle(H),
    Running(Worker<H>),
    /// The handler was lost with a thread that could not be started.
    Lost,
}

impl<H: Handler> Engine<H> {
    pub fn start(&mut self, device: &'static str, bound: Bound) -> Result<(), StartError> {
        match mem::replace(self, Self::Lost) {
            Self::Idle(handler) => {
                *self = Self::Running(Worker::start(device, handler, bound)?);
                Ok(())
            }
            other => {
                *self = other;
                Err(StartError::NotIdle { device })
            }
        }
    }

    /// The handler, while there is no worker.
    pub fn idle(&self) -> Option<&H> {
        match self {
            Self::Idle(handler) => Some(handler),
            Self::Running(_) | Self::Lost => None,
        }
    }

    pub fn idle_mut(&mut self) -> Option<&mut H> {
        match self {
            Self::Idle(handler) => Some(handler),
            Self::Running(_) | Self::Lost => None,
        }
    }

    /// Gives the queues back; none if it did not run.
    pub fn stop(&mut self) -> Vec<BoundQueue> {
        match mem::replace(self, Self::Lost) {
            Self::Running(worker) => {
                let (handler, queues) = worker.stop();
                *self = Self::Idle(handler);
                queues
            }
            other => {
                *self = other;
                Vec::new()
            }
        }
    }
}

/// A running loop.
#[derive(Debug)]
pub struct Worker<H> {
    thread: JoinHandle<(H, Vec<BoundQueue>)>,
    stop: Arc<Stop>,
}

#[derive(Debug)]
struct Stop {
    asked: AtomicBool,
    event: EventFd,
}

impl<H: Handler> Worker<H> {
    pub fn start(device: &'static str, handler: H, bound: Bound) -> Result<Self, StartError> {
        let wait = |op| move |source| StartError::Wait { device, op, source };
        let event = EventFd::new(EFD_CLOEXEC).map_err(wait("eventfd"))?;
        let stop = Arc::new(Stop { asked: AtomicBool::new(false), event });
        let port = Port::new(bound, Arc::clone(&stop)).map_err(wait("epoll"))?;
        let thread = thread::Builder::new()
            .name(device.to_owned())
            .stack_size(STACK)
            .spawn(move || run(port, handler))
            .map_err(|source| StartError::Thread { device, source })?;
        Ok(Self { thread, stop })
    }

    /// Ends the loop after the chain in hand, and waits for it.
    pub fn stop(self) -> (H, Vec<BoundQueue>) {
        self.stop.asked.store(true, Ordering::SeqCst);
        if let Err(error) = self.stop.event.write(1) {
            tracing::debug!(%error, "a stop event was not counted");
        }
        match self.thread.join() {
            Ok(all) => all,
            Err(panic) => panic::resume_unwind(panic),
        }
    }
}

/// The worker's thread.
fn run<H: Handler>(mut port: Port, mut handler: H) -> (H, Vec<BoundQueue>) {
    if let Err(broken) = serve_all(&mut port, &mut handler) {
        tracing::debug!(%broken, "a device asks for a reset");
        port.interrupt().needs_reset();
        port.wait_for_stop();
    }
    (handler, port.into_queues())
}

/// Gives `Ok` when it was told to stop.
fn serve_all(port: &mut Port, handler: &mut impl Handler) -> Result<(), Broken> {
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
