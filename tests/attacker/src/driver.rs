// SPDX-License-Identifier: Apache-2.0
//! A driver's side of virtio-mmio (version 2) and of its rings: what an attack does honestly to get where it can do harm.

use crate::memory::{Batch, WINDOWS, fill, get, put, ring};
use crate::numbers;
use crate::port::clock;

pub(crate) const MAGIC: u64 = 0x000;
pub(crate) const DRIVER_FEATURES: u64 = 0x020;
pub(crate) const DRIVER_FEATURES_SEL: u64 = 0x024;
pub(crate) const QUEUE_SEL: u64 = 0x030;
pub(crate) const QUEUE_NUM_MAX: u64 = 0x034;
pub(crate) const QUEUE_NUM: u64 = 0x038;
pub(crate) const QUEUE_READY: u64 = 0x044;
pub(crate) const QUEUE_NOTIFY: u64 = 0x050;
pub(crate) const STATUS: u64 = 0x070;
pub(crate) const QUEUE_DESC: u64 = 0x080;
pub(crate) const QUEUE_DRIVER: u64 = 0x090;
pub(crate) const QUEUE_DEVICE: u64 = 0x0a0;

/// The status of a device that runs.
pub(crate) const RUNNING: u32 = 15;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

pub(crate) const VSOCK: u64 = numbers::Device::Vsock as u64;
pub(crate) const RNG: u64 = numbers::Device::Rng as u64;

/// How many queues each of them has.
const QUEUES: [u64; 4] = [2, 2, 3, 1];

/// Ticks of the clock that a device may take to answer what is sound: some seconds, for it shares two processors.
const PATIENCE: u64 = 8_000_000_000;

#[derive(Debug, Clone, Copy, Default)]
struct Ring {
    size: u16,
    /// Chains that were offered, and chains that came back.
    offered: u16,
    seen: u16,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) number: u64,
    window: u64,
    rings: [Ring; 3],
    batch: Batch,
    /// It was started with the rings that are here, and nothing else was done to it.
    trusted: bool,
}

/// How far a driver goes.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) enum Stage {
    Reset,
    Acknowledged,
    Driver,
    Negotiated,
    Ready,
    Running,
    Failed,
}

pub(crate) const STAGES: [Stage; 7] = [
    Stage::Reset,
    Stage::Acknowledged,
    Stage::Driver,
    Stage::Negotiated,
    Stage::Ready,
    Stage::Running,
    Stage::Failed,
];

impl Device {
    pub(crate) fn new(number: u64) -> Self {
        let mut device = Self {
            number,
            window: WINDOWS + number * 0x1000,
            rings: [Ring::default(); 3],
            batch: Batch::new(),
            trusted: false,
        };
        for queue in 0..device.queues() {
            device.write(QUEUE_SEL, queue as u32);
            device.rings[queue as usize].size = device.read(QUEUE_NUM_MAX) as u16;
        }
        device
    }

    pub(crate) fn queues(&self) -> u64 {
        QUEUES[self.number as usize]
    }

    pub(crate) fn size(&self, queue: u64) -> u16 {
        self.rings[queue as usize].size
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// After all that was written.
    pub(crate) fn read(&mut self, register: u64) -> u32 {
        self.batch.read(self.window + register)
    }

    /// Soon: with the next read, or `flush`.
    pub(crate) fn write(&mut self, register: u64, value: u32) {
        self.batch.write(self.window + register, value);
    }

    pub(crate) fn flush(&mut self) {
        self.batch.flush();
    }

    /// From a reset to `stage`; with the event indices, which spare notifications, or without.
    pub(crate) fn reach(&mut self, stage: Stage, event_idx: bool) {
        self.trusted = stage == Stage::Running;
        self.write(STATUS, 0);
        if stage >= Stage::Acknowledged {
            self.write(STATUS, 1);
        }
        if stage >= Stage::Driver {
            self.write(STATUS, 3);
        }
        if stage >= Stage::Negotiated {
            self.write(DRIVER_FEATURES_SEL, 1);
            self.write(DRIVER_FEATURES, 1);
            if event_idx {
                self.write(DRIVER_FEATURES_SEL, 0);
                self.write(DRIVER_FEATURES, 1 << 29);
            }
            self.write(STATUS, 11);
        }
        if stage >= Stage::Ready {
            // Until it is reset it may write to the rings that are about to be cleared.
            self.flush();
            (0..self.queues()).for_each(|queue| self.set_up(queue));
        }
        if stage >= Stage::Running {
            self.write(STATUS, RUNNING);
        }
        if stage == Stage::Failed {
            self.write(STATUS, RUNNING | 128);
        }
    }

    pub(crate) fn start(&mut self) {
        self.reach(Stage::Running, false);
    }

    /// Its registers may say anything.
    pub(crate) fn distrust(&mut self) {
        self.trusted = false;
    }

    /// Starts it anew unless it runs, and tells whether it did.
    pub(crate) fn ensure_running(&mut self) -> bool {
        let runs = self.trusted && self.read(STATUS) == RUNNING;
        if !runs {
            self.start();
        }
        !runs
    }

    fn set_up(&mut self, queue: u64) {
        let (table, driver, device) = ring(self.number, queue);
        let ring = &mut self.rings[queue as usize];
        (ring.offered, ring.seen) = (0, 0);
        put(driver, 0u32);
        fill(device, 0, 6 + 8 * usize::from(ring.size));
        let size = u32::from(ring.size);
        for (register, value) in [
            (QUEUE_SEL, queue as u32),
            (QUEUE_NUM, size),
            (QUEUE_DESC, table as u32),
            (QUEUE_DRIVER, driver as u32),
            (QUEUE_DEVICE, device as u32),
            (QUEUE_READY, 1),
        ] {
            self.write(register, value);
        }
    }

    pub(crate) fn describe(&self, queue: u64, index: u16, (at, len): (u64, u32), (flags, next): (u16, u16)) {
        let (table, ..) = ring(self.number, queue);
        let place = table + u64::from(index) * 16;
        put(place, at);
        put(place + 8, len);
        put(place + 12, flags);
        put(place + 14, next);
    }

    /// A chain of one buffer to read and one to write, from `index` on.
    pub(crate) fn request(&self, queue: u64, index: u16, read: (u64, u32), write: (u64, u32)) {
        self.describe(queue, index, read, (NEXT, index + 1));
        self.describe(queue, index + 1, write, (WRITE, 0));
    }

    pub(crate) fn offer(&mut self, queue: u64, head: u16) {
        let (_, driver, _) = ring(self.number, queue);
        let ring = &mut self.rings[queue as usize];
        put(driver + 4 + 2 * u64::from(ring.offered % ring.size), head);
        ring.offered = ring.offered.wrapping_add(1);
        put(driver + 2, ring.offered);
    }

    /// Says that so many more chains are offered, true or not.
    pub(crate) fn jump(&mut self, queue: u64, by: u16) {
        let (_, driver, _) = ring(self.number, queue);
        let ring = &mut self.rings[queue as usize];
        ring.offered = ring.offered.wrapping_add(by);
        put(driver + 2, ring.offered);
    }

    pub(crate) fn kick(&mut self, queue: u64) {
        self.write(QUEUE_NOTIFY, queue as u32);
        self.flush();
    }

    /// How many chains came back since it was last asked.
    pub(crate) fn take_used(&mut self, queue: u64) -> u16 {
        let (.., device) = ring(self.number, queue);
        let ring = &mut self.rings[queue as usize];
        let now: u16 = get(device + 2);
        let new = now.wrapping_sub(ring.seen);
        ring.seen = now;
        new
    }

    /// The next chain that comes back: its head and how much was written to it. `None` if none does.
    pub(crate) fn next_used(&mut self, queue: u64, patience: u64) -> Option<(u16, u32)> {
        let (.., device) = ring(self.number, queue);
        let from = clock();
        let seen = self.rings[queue as usize].seen;
        while get::<u16>(device + 2) == seen {
            if clock().wrapping_sub(from) > patience {
                return None;
            }
        }
        let ring = &mut self.rings[queue as usize];
        let place = device + 4 + 8 * u64::from(seen % ring.size);
        ring.seen = seen.wrapping_add(1);
        Some((get::<u32>(place) as u16, get(place + 4)))
    }

    pub(crate) fn answer(&mut self, queue: u64) -> Option<(u16, u32)> {
        self.next_used(queue, PATIENCE)
    }

    /// Whether half of the ring waits for the device.
    pub(crate) fn is_half_full(&self, queue: u64) -> bool {
        let (.., device) = ring(self.number, queue);
        let ring = self.rings[queue as usize];
        ring.offered.wrapping_sub(get(device + 2)) >= ring.size / 2
    }

    /// Waits a little for all that was offered; a device that does not like it will not answer.
    pub(crate) fn settle(&mut self, queue: u64, patience: u64) -> bool {
        let (.., device) = ring(self.number, queue);
        let from = clock();
        let offered = self.rings[queue as usize].offered;
        while get::<u16>(device + 2) != offered {
            if clock().wrapping_sub(from) > patience {
                return false;
            }
        }
        self.rings[queue as usize].seen = offered;
        true
    }
}
