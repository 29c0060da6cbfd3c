// SPDX-License-Identifier: Apache-2.0
//! A device and the conformance suite's driver, which keeps the rules until a script has it break them. The device's
//! worker is the real one, on its own thread.

use isopod_devices::virtio::VirtioDevice;
use isopod_devices::virtio::conformance::driver::{Driver, HIGH_END, HIGH_START, NEXT, WRITE, registers};
use std::thread;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// Where the scripts' buffers are.
pub(crate) const BUFFERS: u64 = HIGH_START;
pub(crate) const BUFFERS_END: u64 = HIGH_END;

const RUNNING: u32 = 15;
/// How long a worker may take for what it was kicked for, before the script goes on.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long a reset may take.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// A buffer of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) is_writable: bool,
}

pub(crate) struct Machine {
    pub(crate) driver: Driver,
    /// By queue: the descriptor that is free next, and how many chains were made available.
    places: Vec<(u16, u16)>,
}

impl Machine {
    pub(crate) fn new(device: impl VirtioDevice + 'static) -> Self {
        let driver = Driver::new(Box::new(device));
        let places = vec![(0, 0); driver.queues()];
        Self { driver, places }
    }

    /// Everything a driver does until its device runs; it always may.
    pub(crate) fn set_up(&mut self) {
        self.places.fill((0, 0));
        self.driver.start();
        assert_eq!(self.driver.read(registers::STATUS), RUNNING, "a driver that keeps the rules is refused");
    }

    pub(crate) fn reset(&mut self) {
        self.driver.stop_within(STOP_LIMIT);
    }

    /// The end of every script: the device can be reset, and then used as new.
    pub(crate) fn end(mut self) {
        self.reset();
        self.set_up();
        self.reset();
    }

    /// A queue of the device's, from any number.
    pub(crate) fn queue(&self, n: u8) -> usize {
        usize::from(n) % self.places.len()
    }

    /// Makes a chain available and says so; gives its head.
    pub(crate) fn add(&mut self, queue: usize, buffers: &[Buffer]) -> u16 {
        let head = self.places[queue].0;
        for (n, buffer) in (1..).zip(buffers) {
            let next = if n < buffers.len() { NEXT } else { 0 };
            let flags = next | if buffer.is_writable { WRITE } else { 0 };
            let index = self.places[queue].0;
            let following = (index + 1) % self.driver.size(queue);
            self.driver.describe(queue, index, (buffer.addr, buffer.len), (flags, following));
            self.places[queue].0 = following;
        }
        self.offer(queue, head);
        head
    }

    /// Makes the chain that begins at `head` available, whatever is there.
    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        self.driver.offer(queue, head);
        self.places[queue].1 = self.places[queue].1.wrapping_add(1);
        self.driver.kick(queue);
    }

    /// Claims that so many chains were made available since the start.
    pub(crate) fn set_available(&mut self, queue: usize, index: u16) {
        self.driver.set_available_index(queue, index);
        self.places[queue].1 = index;
    }

    /// Waits until the queue is empty, the device wants a reset, or patience ends.
    pub(crate) fn settle(&mut self, queue: usize) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.driver.used_index(queue) == self.places[queue].1 || self.driver.needs_reset() {
                return;
            }
            thread::yield_now();
        }
    }

    /// Writes among the buffers, as far as there is memory.
    pub(crate) fn poke(&self, at: u64, bytes: &[u8]) {
        let room = usize::try_from(BUFFERS_END.saturating_sub(at)).unwrap_or_default().min(bytes.len());
        self.driver.memory.write_slice(&bytes[..room], GuestAddress(at)).expect("buffers are in memory");
    }
}
