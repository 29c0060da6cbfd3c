// SPDX-License-Identifier: Apache-2.0
//! A driver without a guest: it works a device through its registers and the rings in memory, well or badly as told.

use super::shapes::Verdict;
use crate::virtio::status::DEVICE_NEEDS_RESET;
use crate::virtio::transport::mmio::QUEUE_NOTIFY;
use crate::virtio::{GuestMemory, MmioTransport, VirtioDevice, features};
#[cfg(test)]
use proptest::prelude::*;
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub mod registers {
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const DESC_LOW: u64 = 0x080;
    pub const DRIVER_LOW: u64 = 0x090;
    pub const DEVICE_LOW: u64 = 0x0a0;

    pub const OF_A_QUEUE: [u64; 8] = [
        QUEUE_NUM,
        QUEUE_READY,
        DESC_LOW,
        DESC_LOW + 4,
        DRIVER_LOW,
        DRIVER_LOW + 4,
        DEVICE_LOW,
        DEVICE_LOW + 4,
    ];
}

/// Two regions of memory with a hole between.
pub const LOW_END: u64 = 0x8_0000;
pub const HIGH_START: u64 = 0x10_0000;
pub const HIGH_END: u64 = 0x18_0000;
/// Where buffers may be; below are the rings.
pub const BUFFERS: u64 = 0x6_0000;

/// One space for each queue, from here on.
pub const RINGS: u64 = 0x8000;
pub const RING_SPACE: u64 = 0x8000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Longest a device takes to do something, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Driver {
    pub transport: MmioTransport,
    pub memory: GuestMemory,
    irq: EventFd,
    sizes: Vec<u16>,
    available: Vec<u16>,
    seen: Vec<u16>,
}

impl Driver {
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let low = (GuestAddress(0), usize::try_from(LOW_END).unwrap());
        let high = (GuestAddress(HIGH_START), usize::try_from(HIGH_END - HIGH_START).unwrap());
        let memory = GuestMemory::from_ranges(&[low, high]).unwrap();
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let sizes = device.queue_sizes().to_vec();
        let transport = MmioTransport::new(device, memory.clone(), irq.try_clone().unwrap()).unwrap();
        let zeros = vec![0; sizes.len()];
        Self { transport, memory, irq, sizes, available: zeros.clone(), seen: zeros }
    }

    /// The same driver, rings and memory, and another device that nobody has touched.
    pub fn moved(self, device: Box<dyn VirtioDevice>) -> Self {
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let transport = MmioTransport::new(device, self.memory.clone(), irq.try_clone().unwrap()).unwrap();
        Self { transport, irq, ..self }
    }

    pub fn queues(&self) -> usize {
        self.sizes.len()
    }

    pub fn size(&self, queue: usize) -> u16 {
        self.sizes[queue]
    }

    pub fn read(&mut self, register: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(register, &mut word);
        u32::from_le_bytes(word)
    }

    pub fn write(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    /// From reset through DRIVER_OK, as Linux does it.
    pub fn start(&mut self) {
        self.reach(15);
    }

    pub fn reach(&mut self, stage: u32) {
        self.write(registers::STATUS, 0);
        for bits in [1, 3].iter().filter(|bits| **bits <= stage) {
            self.write(registers::STATUS, *bits);
        }
        if stage >= 11 {
            self.negotiate();
            self.set_up_queues();
        }
        for bits in [15, 15 | 128].iter().filter(|bits| **bits <= stage) {
            self.write(registers::STATUS, *bits);
        }
    }

    /// Up to FEATURES_OK, with everything that is offered.
    pub fn negotiate(&mut self) {
        self.negotiate_without(0);
    }

    pub fn negotiate_without(&mut self, not: u64) {
        for bits in [0, 1, 3] {
            self.write(registers::STATUS, bits);
        }
        for (word, not) in [(1, not >> 32), (0, not & u64::from(u32::MAX))] {
            self.write(registers::DEVICE_FEATURES_SEL, word);
            let offered = self.read(registers::DEVICE_FEATURES);
            self.write(registers::DRIVER_FEATURES_SEL, word);
            self.write(registers::DRIVER_FEATURES, offered & !u32::try_from(not).unwrap());
        }
        self.write(registers::STATUS, 11);
        assert_eq!(self.read(registers::STATUS), 11);
    }

    /// Every queue at its place, with empty rings, and ready.
    pub fn set_up_queues(&mut self) {
        assert!(
            self.queue_state().iter().zip(&self.sizes).all(|(state, max)| *state == (u32::from(*max), 0))
        );
        self.write_queues();
        assert!(self.queue_state().iter().all(|(_, ready)| *ready == 1));
    }

    /// Tries to.
    pub fn write_queues(&mut self) {
        for queue in 0..self.queues() {
            self.available[queue] = 0;
            self.seen[queue] = 0;
            let (desc, avail, used) = rings(queue);
            self.memory
                .write_slice(&vec![0; usize::try_from(RING_SPACE).unwrap()], GuestAddress(desc))
                .unwrap();
            self.write(registers::QUEUE_SEL, u32::try_from(queue).unwrap());
            self.write(registers::QUEUE_NUM, u32::from(self.sizes[queue]));
            let places =
                [(registers::DESC_LOW, desc), (registers::DRIVER_LOW, avail), (registers::DEVICE_LOW, used)];
            for (register, address) in places {
                self.write(register, u32::try_from(address).unwrap());
                self.write(register + 4, 0);
            }
            self.write(registers::QUEUE_READY, 1);
        }
    }

    /// What can be seen of the queues from outside.
    pub fn queue_state(&mut self) -> Vec<(u32, u32)> {
        let selected = 0..u32::try_from(self.queues()).unwrap();
        selected
            .map(|queue| {
                self.write(registers::QUEUE_SEL, queue);
                (self.read(registers::QUEUE_NUM_MAX), self.read(registers::QUEUE_READY))
            })
            .collect()
    }

    pub fn describe(&mut self, queue: usize, index: u16, (addr, len): (u64, u32), (flags, next): (u16, u16)) {
        let mut bytes = Vec::from(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        let at = rings(queue).0 + 16 * u64::from(index);
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    /// How many chains were made available, as the ring counts them.
    pub fn available(&self, queue: usize) -> u16 {
        self.available[queue]
    }

    /// Puts a chain's head into the available ring.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let index = self.available[queue];
        let at = rings(queue).1 + 4 + 2 * u64::from(index % self.sizes[queue]);
        self.memory.write_obj(head, GuestAddress(at)).unwrap();
        self.set_available_index(queue, index.wrapping_add(1));
    }

    pub fn set_available_index(&mut self, queue: usize, index: u16) {
        self.available[queue] = index;
        self.memory.write_obj(index, GuestAddress(rings(queue).1 + 2)).unwrap();
        // Before the device's wish to be kicked is read, as a driver must (§2.7.10).
        fence(Ordering::SeqCst);
    }

    /// As with EVENT_IDX: tells the device behind which used entry to interrupt.
    pub fn set_used_event(&mut self, queue: usize, index: u16) {
        let at = rings(queue).1 + 4 + 2 * u64::from(self.sizes[queue]);
        self.memory.write_obj(index, GuestAddress(at)).unwrap();
    }

    /// As with EVENT_IDX: at which available entry the device wants a kick.
    pub fn avail_event(&self, queue: usize) -> u16 {
        let at = rings(queue).2 + 4 + 8 * u64::from(self.sizes[queue]);
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    pub fn kick(&mut self, queue: usize) {
        self.write(QUEUE_NOTIFY, u32::try_from(queue).unwrap());
    }

    pub fn used_index(&self, queue: usize) -> u16 {
        self.memory.read_obj(GuestAddress(rings(queue).2 + 2)).unwrap()
    }

    /// The next used entry, if there is one: head and bytes written.
    pub fn take_used(&mut self, queue: usize) -> Option<(u32, u32)> {
        if self.used_index(queue) == self.seen[queue] {
            return None;
        }
        let at = rings(queue).2 + 4 + 8 * u64::from(self.seen[queue] % self.sizes[queue]);
        self.seen[queue] = self.seen[queue].wrapping_add(1);
        let entry: [u32; 2] = self.memory.read_obj(GuestAddress(at)).unwrap();
        Some((entry[0], entry[1]))
    }

    pub fn wait_used(&mut self, queue: usize) -> (u32, u32) {
        let started = Instant::now();
        loop {
            if let Some(used) = self.take_used(queue) {
                return used;
            }
            assert!(started.elapsed() < PATIENCE, "no answer; status {:#x}", self.read(registers::STATUS));
            thread::yield_now();
        }
    }

    pub fn needs_reset(&mut self) -> bool {
        self.read(registers::STATUS) & DEVICE_NEEDS_RESET != 0
    }

    /// What becomes of a chain: one of the two must, and soon.
    pub fn wait_for_verdict(&mut self, queue: usize) -> Verdict {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            // The driver must also be told (§2.1.2), be it a moment later.
            if self.needs_reset() && self.interrupts() > 0 {
                return Verdict::NeedsReset;
            }
            if self.take_used(queue).is_some() {
                return Verdict::Used;
            }
            thread::yield_now();
        }
        panic!("a chain was neither used nor refused");
    }

    /// How often the line was raised since the last time.
    pub fn interrupts(&mut self) -> u64 {
        self.irq.read().unwrap_or(0)
    }

    /// Resets the device, and sees that it is as it was at first.
    pub fn stop_within(&mut self, limit: Duration) {
        let started = Instant::now();
        self.write(registers::STATUS, 0);
        assert!(started.elapsed() < limit, "a stop took {:?}", started.elapsed());
        assert_eq!(self.read(registers::STATUS), 0);
        assert_eq!(self.read(registers::INTERRUPT_STATUS), 0);
        assert!(self.queue_state().iter().all(|(_, ready)| *ready == 0));
    }
}

/// Descriptors, driver area and device area.
fn rings(queue: usize) -> (u64, u64, u64) {
    let base = RINGS + RING_SPACE * u64::try_from(queue).unwrap();
    (base, base + 0x4000, base + 0x6000)
}

/// Register accesses, most of them where something happens.
#[cfg(test)]
pub fn any_accesses() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let known = prop::sample::select(vec![
        registers::DEVICE_FEATURES_SEL,
        registers::DRIVER_FEATURES,
        registers::DRIVER_FEATURES_SEL,
        registers::QUEUE_SEL,
        registers::QUEUE_NUM,
        registers::QUEUE_READY,
        QUEUE_NOTIFY,
        registers::INTERRUPT_ACK,
        registers::STATUS,
        registers::DESC_LOW,
        registers::DESC_LOW + 4,
        registers::DRIVER_LOW,
        registers::DEVICE_LOW,
    ]);
    let value = prop_oneof![
        0u32..4,
        prop::sample::select(vec![0, 1, 3, 11, 15, 64, 128, 0x8000, 0xc000, 0xe000, u32::MAX]),
        any::<u32>(),
    ];
    let offset = prop_oneof![8 => known, 1 => 0u64..0x200, 1 => any::<u64>()];
    let likely = value
        .clone()
        .prop_map(|value| (registers::STATUS, [1, 3, 11, 15][usize::try_from(value % 4).unwrap()]));
    prop::collection::vec(prop_oneof![4 => (offset, value), 1 => likely], 0..200)
}

/// The transport's own bits, for tests that leave some out.
pub const EVENT_IDX: u64 = features::EVENT_IDX;
