// SPDX-License-Identifier: Apache-2.0
//! The virtio-mmio transport, version 2 (§4.2.2): a page of registers per device.
//!
//! Control registers are 32 bits wide and aligned; an access of any other shape reads as zero and writes nothing. So
//! does an unknown register. The shared memory registers read as all ones, which says there is no such
//! region. The configuration space begins at 0x100 and takes accesses of 1, 2, 4 and 8 bytes; writes to it are ignored.

use super::queue::{Half, Part, QueueRegisters};
use crate::virtio::status::{DEVICE_NEEDS_RESET, Effect, Status};
use crate::virtio::{Bound, BoundQueue, GuestMemory, Interrupt, VirtioDevice, features};
use std::io;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Bytes of address space a device takes.
pub const WINDOW: u64 = 0x1000;
/// Where, in the window, a write kicks a queue: what an ioeventfd is registered for, with the queue as its datum.
pub const QUEUE_NOTIFY: u64 = 0x050;

const MAGIC_VALUE: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
const SHM_LEN_LOW: u64 = 0x0b0;
const SHM_BASE_HIGH: u64 = 0x0bc;
const CONFIG_GENERATION: u64 = 0x0fc;
const CONFIG: u64 = 0x100;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"isop");

/// A device and the registers it is reached by.
#[derive(Debug)]
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    memory: GuestMemory,
    interrupt: Interrupt,
    kicks: Vec<EventFd>,
    status: Status,
    accepted: Accepted,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    queues: Vec<QueueRegisters>,
}

/// The features a driver has written so far.
#[derive(Debug, Default)]
struct Accepted {
    bits: u64,
    /// It chose one beyond the 64 there are.
    unknown: bool,
}

impl MmioTransport {
    /// `irq` is what KVM watches as the device's irqfd.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory, irq: EventFd) -> io::Result<Self> {
        let sizes = device.queue_sizes();
        let queues = sizes.iter().map(|max| QueueRegisters::new(*max)).collect();
        let kicks =
            sizes.iter().map(|_| EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)).collect::<io::Result<_>>()?;
        Ok(Self {
            device,
            memory,
            interrupt: Interrupt::new(irq),
            kicks,
            status: Status::default(),
            accepted: Accepted::default(),
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues,
        })
    }

    /// The queues' eventfds, to be registered as ioeventfds at `QUEUE_NOTIFY` with the number as datum. A write that
    /// still gets here does the same.
    pub fn kicks(&self) -> impl Iterator<Item = (u32, &EventFd)> {
        (0..).zip(&self.kicks)
    }

    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG) {
            if matches!(data.len(), 1 | 2 | 4 | 8) {
                self.device.read_config(offset, data);
            }
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.register(offset).to_le_bytes();
        }
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(word) = <[u8; 4]>::try_from(data) else {
            return;
        };
        let value = u32::from_le_bytes(word);
        match offset {
            DEVICE_FEATURES_SEL => self.device_features_sel = value,
            DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            DRIVER_FEATURES => self.accept_features(value),
            QUEUE_SEL => self.queue_sel = value,
            QUEUE_NOTIFY => self.notify(value),
            INTERRUPT_ACK => self.interrupt.acknowledge(value),
            STATUS => self.write_status(value),
            _ => self.write_queue(offset, value),
        }
    }

    /// As if the driver had written 0 to the status register.
    pub fn reset(&mut self) {
        self.write_status(0);
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => 2,
            DEVICE_ID => self.device.kind(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => word(self.offered(), self.device_features_sel),
            QUEUE_NUM_MAX => self.selected().map_or(0, |queue| queue.max().into()),
            QUEUE_READY => self.selected().is_some_and(QueueRegisters::is_ready).into(),
            INTERRUPT_STATUS => self.interrupt.status(),
            STATUS => {
                let needs_reset = if self.interrupt.is_reset_needed() { DEVICE_NEEDS_RESET } else { 0 };
                self.status.bits() | needs_reset
            }
            SHM_LEN_LOW..=SHM_BASE_HIGH if offset.is_multiple_of(4) => u32::MAX,
            CONFIG_GENERATION => self.interrupt.generation(),
            _ => 0,
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | features::TRANSPORT
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn accept_features(&mut self, value: u32) {
        if !self.status.takes_features() {
            return;
        }
        let (kept, added) = match self.driver_features_sel {
            0 => (self.accepted.bits & !u64::from(u32::MAX), u64::from(value)),
            1 => (self.accepted.bits & u64::from(u32::MAX), u64::from(value) << 32),
            _ => {
                self.accepted.unknown |= value != 0;
                return;
            }
        };
        self.accepted.bits = kept | added;
    }

    fn write_queue(&mut self, offset: u64, value: u32) {
        let Ok(index) = usize::try_from(self.queue_sel) else {
            return;
        };
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        if !self.status.takes_queues() {
            return;
        }
        match offset {
            QUEUE_NUM => queue.set_size(value),
            QUEUE_READY => queue.set_ready(value, &self.memory),
            QUEUE_DESC_LOW => queue.set_address(Part::Descriptors, Half::Low, value),
            QUEUE_DESC_HIGH => queue.set_address(Part::Descriptors, Half::High, value),
            QUEUE_DRIVER_LOW => queue.set_address(Part::Driver, Half::Low, value),
            QUEUE_DRIVER_HIGH => queue.set_address(Part::Driver, Half::High, value),
            QUEUE_DEVICE_LOW => queue.set_address(Part::Device, Half::Low, value),
            QUEUE_DEVICE_HIGH => queue.set_address(Part::Device, Half::High, value),
            _ => {}
        }
    }

    fn notify(&self, value: u32) {
        if !self.status.runs() {
            return;
        }
        let kick = usize::try_from(value).ok().and_then(|index| self.kicks.get(index));
        if let Some(Err(error)) = kick.map(|kick| kick.write(1)) {
            tracing::debug!(%error, "a kick was not counted, so one is already due");
        }
    }

    fn write_status(&mut self, value: u32) {
        let acceptable = !self.accepted.unknown && features::acceptable(self.offered(), self.accepted.bits);
        let (status, effect) = self.status.write(value, acceptable);
        self.status = status;
        match effect {
            Effect::Nothing => {}
            Effect::Start => self.start(),
            Effect::Stop => self.stop(),
            Effect::Reset => {
                self.stop();
                self.interrupt.clear();
                self.accepted = Accepted::default();
                (self.device_features_sel, self.driver_features_sel, self.queue_sel) = (0, 0, 0);
                self.queues.iter_mut().for_each(QueueRegisters::reset);
            }
        }
    }

    /// The driver is gone, or has given up.
    fn stop(&mut self) {
        drop(self.device.stop());
        self.device.reset();
    }

    /// The driver is ready. A device that cannot start, or lacks a queue, asks for a reset instead.
    fn start(&mut self) {
        let started = match self.bind() {
            Some(bound) => self.device.start(bound).inspect_err(|error| tracing::warn!(%error)).is_ok(),
            None => false,
        };
        if !started {
            self.interrupt.needs_reset();
        }
    }

    fn bind(&self) -> Option<Bound> {
        let bind = |(registers, kick): (&QueueRegisters, &EventFd)| {
            let queue =
                registers.is_ready().then(|| registers.build(&self.memory, self.accepted.bits).ok())??;
            Some(BoundQueue { queue, kick: kick.try_clone().ok()? })
        };
        Some(Bound {
            memory: self.memory.clone(),
            features: self.accepted.bits,
            queues: self.queues.iter().zip(&self.kicks).map(bind).collect::<Option<_>>()?,
            interrupt: self.interrupt.clone(),
        })
    }
}

impl Drop for MmioTransport {
    fn drop(&mut self) {
        drop(self.device.stop());
    }
}

/// The 32 bits of `bits` that a selector register names.
fn word(bits: u64, select: u32) -> u32 {
    let shifted = if select == 1 { bits >> 32 } else { bits };
    if select > 1 { 0 } else { u32::try_from(shifted & u64::from(u32::MAX)).unwrap_or(0) }
}
