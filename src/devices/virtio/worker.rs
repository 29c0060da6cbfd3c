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

use super::chain::{Broken, Buffer, Chain, Table};
use super::{Bound, BoundQueue, GuestMemory, Interrupt, StartError};
use std::fmt::Debug;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use virtio_queue::{Error, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

pub use vmm_sys_util::epoll::EventSet;

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

    /// The device stops: drop what belongs to this driver's time. No queue may be touched any more.
    fn end(&mut self) {}
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
        let stop = Arc::new(Stop {
            asked: AtomicBool::new(false),
            event,
        });
        let port = Port::new(bound, Arc::clone(&stop)).map_err(wait("epoll"))?;
        let thread = thread::Builder::new()
            .name(device.to_owned())
            .spawn(move || port.run(handler))
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

/// A handler's way to its queues, its memory and what it waits for.
#[derive(Debug)]
pub struct Port {
    memory: GuestMemory,
    features: u64,
    rings: Vec<Ring>,
    interrupt: Interrupt,
    epoll: Epoll,
    stop: Arc<Stop>,
    spare: Buffer,
}

#[derive(Debug)]
struct Ring {
    bound: BoundQueue,
    /// The driver was last told to kick.
    listening: bool,
}

/// Tokens of the epoll: the queues' kicks by number, the stop, and the handler's own behind it.
const STOP: u64 = 1 << 32;
const OWN: u64 = 1 << 33;

impl Port {
    fn new(bound: Bound, stop: Arc<Stop>) -> io::Result<Self> {
        let Bound {
            memory,
            features,
            queues,
            interrupt,
        } = bound;
        let epoll = Epoll::new()?;
        let add = |fd, token| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token));
        add(stop.event.as_raw_fd(), STOP)?;
        for (index, queue) in (0..).zip(&queues) {
            add(queue.kick.as_raw_fd(), index)?;
        }
        let rings = queues
            .into_iter()
            .map(|bound| Ring {
                bound,
                listening: true,
            })
            .collect();
        Ok(Self {
            memory,
            features,
            rings,
            interrupt,
            epoll,
            stop,
            spare: Buffer::default(),
        })
    }

    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// What was negotiated.
    pub fn features(&self) -> u64 {
        self.features
    }

    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Wakes the handler with `token` when `fd` is ready for `interest` (level-triggered). The caller keeps `fd`
    /// open until it is unwatched, or lets the close do that.
    pub fn watch(&self, fd: impl AsFd, token: u32, interest: EventSet) -> io::Result<()> {
        self.control(ControlOperation::Add, &fd, token, interest)
    }

    /// Changes what is waited for; nothing at all is allowed, and still reports hang-ups.
    pub fn rewatch(&self, fd: impl AsFd, token: u32, interest: EventSet) -> io::Result<()> {
        self.control(ControlOperation::Modify, &fd, token, interest)
    }

    pub fn unwatch(&self, fd: impl AsFd) -> io::Result<()> {
        self.control(ControlOperation::Delete, &fd, 0, EventSet::empty())
    }

    fn control(
        &self,
        op: ControlOperation,
        fd: &impl AsFd,
        token: u32,
        interest: EventSet,
    ) -> io::Result<()> {
        let event = EpollEvent::new(interest, OWN | u64::from(token));
        self.epoll.ctl(op, fd.as_fd().as_raw_fd(), event)
    }

    /// The next chain of a queue. With `None` the driver has been told to kick when there is another, so a handler
    /// that got one may go back to sleep.
    pub fn pop(&mut self, queue: usize) -> Result<Option<Chain>, Broken> {
        let Some(ring) = self.rings.get_mut(queue) else {
            return Ok(None);
        };
        // Once to find it empty, and once because the driver may have added one before it saw that we listen.
        for _ in 0..2 {
            if self.stop.asked.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if let Some(head) = ring.pop_head(&self.memory)? {
                let table = Table {
                    addr: GuestAddress(ring.bound.queue.desc_table()),
                    size: ring.bound.queue.size(),
                };
                return Chain::walk(&self.memory, table, head, mem::take(&mut self.spare)).map(Some);
            }
            if !ring.listen(&self.memory)? {
                return Ok(None);
            }
        }
        // It said there was one, and there was none: the index went backwards.
        Err(Broken::AvailableIndex)
    }

    /// Gives a chain back with `written` bytes of answer in it. The driver learns of it by the next `notify`.
    pub fn used(&mut self, queue: usize, chain: Chain, written: usize) -> Result<(), Broken> {
        let Some(ring) = self.rings.get_mut(queue) else {
            return Ok(());
        };
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        ring.bound
            .queue
            .add_used(&self.memory, chain.head(), written)
            .map_err(|_| Broken::Ring)?;
        self.spare = chain.into_scratch();
        Ok(())
    }

    /// Interrupts the driver if it wants to know of what was used since the last time.
    pub fn notify(&mut self, queue: usize) -> Result<(), Broken> {
        let Some(ring) = self.rings.get_mut(queue) else {
            return Ok(());
        };
        if ring
            .bound
            .queue
            .needs_notification(&self.memory)
            .map_err(|_| Broken::Ring)?
        {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    /// Serves a queue until it is empty, or has had its turn: `answer` gives the bytes it wrote to each chain.
    pub fn serve(
        &mut self,
        queue: usize,
        mut answer: impl FnMut(&GuestMemory, &Chain) -> usize,
    ) -> Result<(), Broken> {
        let turn = self.rings.get(queue).map_or(0, |ring| ring.bound.queue.size());
        let mut served = 0;
        while served < turn {
            let Some(chain) = self.pop(queue)? else { break };
            let written = answer(&self.memory, &chain);
            self.used(queue, chain, written)?;
            served += 1;
        }
        if served > 0 {
            self.notify(queue)?;
        }
        if served == turn {
            self.kick_again(queue);
        }
        Ok(())
    }

    /// Has the handler woken once more for this queue, after the others had their turn.
    pub fn kick_again(&self, queue: usize) {
        let Some(ring) = self.rings.get(queue) else { return };
        if let Err(error) = ring.bound.kick.write(1) {
            tracing::debug!(%error, "a queue's own kick was not counted");
        }
    }

    fn run<H: Handler>(mut self, mut handler: H) -> (H, Vec<BoundQueue>) {
        if let Err(broken) = self.work(&mut handler) {
            tracing::debug!(%broken, "a device asks for a reset");
            self.interrupt.needs_reset();
            self.wait_for_stop();
        }
        handler.end();
        (handler, self.rings.into_iter().map(|ring| ring.bound).collect())
    }

    /// Gives `Ok` when it was told to stop.
    fn work(&mut self, handler: &mut impl Handler) -> Result<(), Broken> {
        handler.begin(self)?;
        // Kicks from before the start are not lost with an eventfd, but a restored ring may hold chains without one.
        for queue in 0..self.rings.len() {
            handler.wake(Wake::Kick(queue), self)?;
        }
        let mut events = [EpollEvent::default(); 16];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(_) => return Err(Broken::Wait),
            };
            if self.stop.asked.load(Ordering::SeqCst) {
                return Ok(());
            }
            for event in &events[..count] {
                if let Some(wake) = self.understand(event) {
                    handler.wake(wake, self)?;
                }
            }
        }
    }

    fn understand(&self, event: &EpollEvent) -> Option<Wake> {
        let (token, events) = (event.data(), event.event_set());
        if token & OWN != 0 {
            return Some(Wake::Ready {
                token: u32::try_from(token & !OWN).ok()?,
                events,
            });
        }
        let queue = usize::try_from(token).ok()?;
        // The count does not matter; that it is read, and so no longer ready, does.
        let _count = self.rings.get(queue)?.bound.kick.read();
        Some(Wake::Kick(queue))
    }

    /// Deaf to the queues: a broken ring is not looked at again.
    fn wait_for_stop(&self) {
        while !self.stop.asked.load(Ordering::SeqCst) {
            if let Err(error) = self.stop.event.read() {
                tracing::debug!(%error, "waiting for a stop was interrupted");
            }
        }
    }
}

impl Ring {
    fn pop_head(&mut self, memory: &GuestMemory) -> Result<Option<u16>, Broken> {
        if self.listening {
            self.bound
                .queue
                .disable_notification(memory)
                .map_err(|_| Broken::Ring)?;
            self.listening = false;
        }
        let head = match self.bound.queue.iter(memory) {
            Ok(mut available) => available.next().map(|chain| chain.head_index()),
            Err(Error::InvalidAvailRingIndex) => return Err(Broken::AvailableIndex),
            Err(_) => return Err(Broken::Ring),
        };
        Ok(head)
    }

    /// Asks to be kicked; gives whether something came before that was seen.
    fn listen(&mut self, memory: &GuestMemory) -> Result<bool, Broken> {
        self.listening = true;
        self.bound
            .queue
            .enable_notification(memory)
            .map_err(|_| Broken::Ring)
    }
}

#[cfg(test)]
mod tests;
