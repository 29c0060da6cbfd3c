// SPDX-License-Identifier: Apache-2.0
//! The virtio-mmio transport, version 2 (§4.2.2): a page of registers per device.
//!
//! Control registers are 32 bits wide and aligned; an access of any other shape reads as zero and writes nothing. So
//! does an unknown register. The shared memory registers read as all ones, which says there is no such
//! region. The configuration space begins at 0x100 and takes accesses of 1, 2, 4 and 8 bytes; writes to it are ignored.

mod pause;

use super::queue::{Half, Part, QueueField, QueueRegisters};
use super::registers::{QueueRegister, Registers};
use crate::virtio::state::BindError;
use crate::virtio::status::{DEVICE_NEEDS_RESET, Effect};
use crate::virtio::{Bound, BoundQueue, GuestMemory, Interrupt, StartError, VirtioDevice, features};
use isopod_sys::confined::Closing;
use pause::Hold;
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
    registers: Registers,
    hold: Hold,
}

impl MmioTransport {
    /// `irq` is what KVM watches as the device's irqfd.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory, irq: EventFd) -> io::Result<Self> {
        let sizes = device.queue_sizes();
        let registers = Registers::new(sizes);
        let kicks =
            sizes.iter().map(|_| EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)).collect::<io::Result<_>>()?;
        Ok(Self { device, memory, interrupt: Interrupt::new(irq), kicks, registers, hold: Hold::Free })
    }

    /// Makes the device's thread, before the guest runs.
    pub fn man(&mut self, confined: bool) -> Result<Option<Closing>, StartError> {
        self.device.man(confined)
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
            DEVICE_FEATURES_SEL => self.registers.device_features_sel = value,
            DRIVER_FEATURES_SEL => self.registers.driver_features_sel = value,
            DRIVER_FEATURES => self.registers.accept_features(value),
            QUEUE_SEL => self.registers.queue_sel = value,
            QUEUE_NOTIFY => self.notify(value),
            INTERRUPT_ACK => self.interrupt.acknowledge(value),
            STATUS => self.write_status(value),
            _ => {
                if let Some(register) = queue_register(offset) {
                    self.registers.write_queue(register, value, &self.memory);
                }
            }
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
            DEVICE_FEATURES => word(self.offered(), self.registers.device_features_sel),
            QUEUE_NUM_MAX => self.registers.selected().map_or(0, |queue| queue.max().into()),
            QUEUE_READY => self.registers.selected().is_some_and(QueueRegisters::is_ready).into(),
            INTERRUPT_STATUS => self.interrupt.status(),
            STATUS => {
                let needs_reset = if self.interrupt.is_reset_needed() { DEVICE_NEEDS_RESET } else { 0 };
                self.registers.status.bits() | needs_reset
            }
            SHM_LEN_LOW..=SHM_BASE_HIGH if offset.is_multiple_of(4) => u32::MAX,
            CONFIG_GENERATION => self.interrupt.generation(),
            _ => 0,
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | features::TRANSPORT
    }

    fn notify(&self, value: u32) {
        if !self.registers.status.runs() {
            return;
        }
        let kick = usize::try_from(value).ok().and_then(|index| self.kicks.get(index));
        if let Some(Err(error)) = kick.map(|kick| kick.write(1)) {
            tracing::debug!(%error, "a kick was not counted, so one is already due");
        }
    }

    fn write_status(&mut self, value: u32) {
        let acceptable = self.registers.is_acceptable(self.offered());
        let (status, effect) = self.registers.status.write(value, acceptable);
        self.registers.status = status;
        match effect {
            Effect::Nothing => {}
            Effect::Start => self.start(),
            Effect::Stop => self.stop(),
            Effect::Reset => {
                self.stop();
                self.interrupt.clear();
                self.registers = Registers::new(self.device.queue_sizes());
            }
        }
    }

    /// The driver is gone, or has given up.
    fn stop(&mut self) {
        drop(self.device.stop());
        self.device.reset();
        self.hold.forget();
    }

    /// The driver is ready. A device that cannot start, or lacks a queue, asks for a reset instead.
    fn start(&mut self) {
        let started = match self.bind(&self.registers) {
            Ok(queues) => {
                let queues = self.hold.keep(queues);
                queues
                    .is_none_or(|queues| self.run(queues).inspect_err(|error| tracing::warn!(%error)).is_ok())
            }
            Err(error) => {
                tracing::debug!(%error, "a device without its queues asks for a reset");
                false
            }
        };
        if !started {
            self.interrupt.needs_reset();
        }
    }

    /// The queues these registers describe, all of which must be ready.
    fn bind(&self, registers: &Registers) -> Result<Vec<BoundQueue>, BindError> {
        let bind = |(queue, (registers_of, kick)): (usize, (&QueueRegisters, &EventFd))| {
            let refuse = |field| BindError::Queue { queue, field };
            if !registers_of.is_ready() {
                return Err(refuse(QueueField::Ready));
            }
            let built = registers_of.build(&self.memory, registers.accepted.bits).map_err(refuse)?;
            let kick = kick.try_clone().map_err(|source| BindError::Kick { queue, source })?;
            Ok(BoundQueue { queue: built, kick })
        };
        registers.queues.iter().zip(&self.kicks).enumerate().map(bind).collect()
    }

    fn run(&mut self, queues: Vec<BoundQueue>) -> Result<(), StartError> {
        let (memory, interrupt) = (self.memory.clone(), self.interrupt.clone());
        self.device.start(Bound { memory, features: self.registers.accepted.bits, queues, interrupt })
    }
}

impl Drop for MmioTransport {
    fn drop(&mut self) {
        drop(self.device.stop());
    }
}

fn queue_register(offset: u64) -> Option<QueueRegister> {
    Some(match offset {
        QUEUE_NUM => QueueRegister::Size,
        QUEUE_READY => QueueRegister::Ready,
        QUEUE_DESC_LOW => QueueRegister::Address(Part::Descriptors, Half::Low),
        QUEUE_DESC_HIGH => QueueRegister::Address(Part::Descriptors, Half::High),
        QUEUE_DRIVER_LOW => QueueRegister::Address(Part::Driver, Half::Low),
        QUEUE_DRIVER_HIGH => QueueRegister::Address(Part::Driver, Half::High),
        QUEUE_DEVICE_LOW => QueueRegister::Address(Part::Device, Half::Low),
        QUEUE_DEVICE_HIGH => QueueRegister::Address(Part::Device, Half::High),
        _ => return None,
    })
}

/// The 32 bits of `bits` that a selector register names.
fn word(bits: u64, select: u32) -> u32 {
    let shifted = if select == 1 { bits >> 32 } else { bits };
    if select > 1 { 0 } else { u32::try_from(shifted & u64::from(u32::MAX)).unwrap_or(0) }
}
