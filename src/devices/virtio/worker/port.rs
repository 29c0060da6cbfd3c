// SPDX-License-Identifier: Apache-2.0
//! A handler's side of the worker: its rings, and what else it waits for.
//!
//! The ring's own bookkeeping is virtio-queue's; here is the order in which it must be used so that nobody waits for
//! ever. `pop` asks to be kicked only when a ring is found empty, and then looks once more, for the driver may
//! have added a chain before it saw that (§2.7.10).

use super::{Stop, Wake};
use crate::virtio::chain::{Broken, Buffer, Chain, Table};
use crate::virtio::{Bound, BoundQueue, GuestMemory, Interrupt};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use virtio_queue::{Error, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// A handler's way to its queues, its memory and what it waits for.
#[derive(Debug)]
pub struct Port {
    memory: GuestMemory,
    features: u64,
    rings: Vec<Ring>,
    interrupt: Interrupt,
    /// There once it listens.
    epoll: Option<Epoll>,
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
    pub(super) fn new(bound: Bound, stop: Arc<Stop>) -> Self {
        let Bound { memory, features, queues, interrupt } = bound;
        let rings = queues.into_iter().map(|bound| Ring { bound, listening: true }).collect();
        Self { memory, features, rings, interrupt, epoll: None, stop, spare: Buffer::default() }
    }

    /// Begins to wait for the queues' kicks and for the stop.
    pub(super) fn listen(&mut self) -> Result<(), Broken> {
        let begin = || {
            let epoll = Epoll::new()?;
            let add = |fd, token| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token));
            add(self.stop.event.as_raw_fd(), STOP)?;
            for (index, ring) in (0..).zip(&self.rings) {
                add(ring.bound.kick.as_raw_fd(), index)?;
            }
            io::Result::Ok(epoll)
        };
        self.epoll = Some(begin().map_err(|_| Broken::Wait)?);
        Ok(())
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
        let epoll = self.epoll.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        epoll.ctl(op, fd.as_fd().as_raw_fd(), event)
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
        ring.bound.queue.add_used(&self.memory, chain.head(), written).map_err(|_| Broken::Ring)?;
        self.spare = chain.into_scratch();
        Ok(())
    }

    /// Interrupts the driver if it wants to know of what was used since the last time.
    pub fn notify(&mut self, queue: usize) -> Result<(), Broken> {
        let Some(ring) = self.rings.get_mut(queue) else {
            return Ok(());
        };
        if ring.bound.queue.needs_notification(&self.memory).map_err(|_| Broken::Ring)? {
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

    pub(super) fn queues(&self) -> usize {
        self.rings.len()
    }

    pub(super) fn into_queues(self) -> Vec<BoundQueue> {
        self.rings.into_iter().map(|ring| ring.bound).collect()
    }

    /// Sleeps until there is something to do, and puts it into `wakes`; gives whether to go on.
    pub(super) fn wait(&self, wakes: &mut Vec<Wake>) -> Result<bool, Broken> {
        let mut events = [EpollEvent::default(); 16];
        let epoll = self.epoll.as_ref().ok_or(Broken::Wait)?;
        let count = match epoll.wait(-1, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => return Err(Broken::Wait),
        };
        wakes.extend(events[..count].iter().filter_map(|event| self.understand(event)));
        Ok(!self.stop.asked.load(Ordering::SeqCst))
    }

    fn understand(&self, event: &EpollEvent) -> Option<Wake> {
        let (token, events) = (event.data(), event.event_set());
        if token & OWN != 0 {
            return Some(Wake::Ready { token: u32::try_from(token & !OWN).ok()?, events });
        }
        let queue = usize::try_from(token).ok()?;
        // The count does not matter; that it is read, and so no longer ready, does.
        let _count = self.rings.get(queue)?.bound.kick.read();
        Some(Wake::Kick(queue))
    }

    /// Deaf to the queues: a broken ring is not looked at again.
    pub(super) fn wait_for_stop(&self) {
        let mut events = [PollFd::new(&self.stop.event, PollFlags::IN)];
        while !self.stop.asked.load(Ordering::SeqCst) {
            // What is left to be heard is the stop's own ring, which is taken by who forgets it.
            let _ = poll(&mut events, None);
        }
    }
}

impl Ring {
    fn pop_head(&mut self, memory: &GuestMemory) -> Result<Option<u16>, Broken> {
        if self.listening {
            self.bound.queue.disable_notification(memory).map_err(|_| Broken::Ring)?;
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
        self.bound.queue.enable_notification(memory).map_err(|_| Broken::Ring)
    }
}
