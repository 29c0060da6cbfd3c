// SPDX-License-Identifier: Apache-2.0
//! Which device an address belongs to. What belongs to none reads as all ones and swallows writes.

use crate::arch::layout;
use crate::power;
use crate::slots::Slots;
use crate::wire::End;
use isopod_devices::MmioTransport;
use isopod_devices::serial::Serial;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Bus {
    /// In the order of their windows.
    transports: Vec<Mutex<MmioTransport>>,
    serial: Option<Mutex<Serial>>,
    slots: Slots,
}

impl Bus {
    pub(crate) fn new(transports: Vec<MmioTransport>, serial: Option<Serial>, slots: Slots) -> Self {
        let transports = transports.into_iter().map(Mutex::new).collect();
        Self { transports, serial: serial.map(Mutex::new), slots }
    }

    /// In the order of their windows.
    pub(crate) fn transports(&self) -> impl Iterator<Item = MutexGuard<'_, MmioTransport>> {
        self.transports.iter().map(|transport| transport.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn has_console(&self) -> bool {
        self.serial.is_some()
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(crate) fn mmio_read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        self.with_transport(address, |transport, offset| transport.read(offset, data));
    }

    pub(crate) fn mmio_write(&self, address: u64, data: &[u8]) {
        self.with_transport(address, |transport, offset| transport.write(offset, data));
    }

    pub(crate) fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        let Some(first) = data.first_mut() else { return };
        if let Some(value) = power::on_read(port) {
            *first = value;
        } else if let (Some(serial), Some(offset)) = (&self.serial, serial_offset(port)) {
            *first = serial.lock().unwrap_or_else(PoisonError::into_inner).read(offset);
        }
    }

    /// Gives the machine's end, if that is what the guest asked for or what came of it.
    pub(crate) fn port_write(&self, port: u16, data: &[u8]) -> Option<End> {
        if let (layout::MEMORY_PORT, Ok(asked)) = (port, data.try_into()) {
            let refused = self.slots.ask(u32::from_le_bytes(asked)).err()?;
            let message = format!("KVM refuses the memory that the guest asks for: {refused}");
            return Some(End::Failed { message });
        }
        let value = *data.first()?;
        if let (Some(serial), Some(offset)) = (&self.serial, serial_offset(port)) {
            serial.lock().unwrap_or_else(PoisonError::into_inner).write(offset, value);
        }
        power::on_write(port, value)
    }

    fn with_transport(&self, address: u64, act: impl FnOnce(&mut MmioTransport, u64)) {
        let Some(from_start) = address.checked_sub(layout::VIRTIO_MMIO) else {
            return;
        };
        let window = usize::try_from(from_start / layout::VIRTIO_MMIO_SIZE).unwrap_or(usize::MAX);
        if let Some(transport) = self.transports.get(window) {
            let mut transport = transport.lock().unwrap_or_else(PoisonError::into_inner);
            act(&mut transport, from_start % layout::VIRTIO_MMIO_SIZE);
        }
    }
}

fn serial_offset(port: u16) -> Option<u8> {
    port.checked_sub(layout::SERIAL_PORT)
        .filter(|offset| *offset < 8)
        .and_then(|offset| u8::try_from(offset).ok())
}
