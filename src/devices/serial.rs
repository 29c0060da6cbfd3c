// SPDX-License-Identifier: Apache-2.0
//! An 8250 for the kernel's messages while debugging; a machine has it only when it was asked for.
//!
//! Output goes to any writer, and what the writer refuses is lost: a guest must not be able to stop itself, or us, by
//! writing faster than somebody reads. Input is bounded by the device's own 64-byte buffer.

use std::fmt::{self, Debug, Formatter};
use std::io::{self, Write};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart};
use vmm_sys_util::eventfd::EventFd;

/// Ports it takes, from its base on.
pub const PORTS: u16 = 8;

struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

pub struct Serial(Uart<Line, NoEvents, Box<dyn Write + Send>>);

impl Serial {
    /// `irq` is the line's irqfd.
    pub fn new(irq: EventFd, out: Box<dyn Write + Send>) -> Self {
        Self(Uart::new(Line(irq), out))
    }

    /// `offset` is the port's distance from the base.
    pub fn read(&mut self, offset: u8) -> u8 {
        self.0.read(offset)
    }

    pub fn write(&mut self, offset: u8, value: u8) {
        if let Err(error) = self.0.write(offset, value) {
            tracing::debug!(?error, "a byte of the serial console was lost");
        }
    }

    /// Bytes typed; gives how many there was room for.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let room = self.0.fifo_capacity().min(bytes.len());
        self.0.enqueue_raw_bytes(&bytes[..room]).unwrap_or(0)
    }
}

impl Debug for Serial {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn serial() -> (Serial, Screen) {
        let screen = Screen::default();
        (Serial::new(EventFd::new(EFD_NONBLOCK).unwrap(), Box::new(screen.clone())), screen)
    }

    #[test]
    fn what_the_guest_prints_arrives() {
        let (mut serial, screen) = serial();
        b"Linux".iter().for_each(|byte| serial.write(0, *byte));
        assert_eq!(*screen.0.lock().unwrap(), b"Linux");
    }

    #[test]
    fn what_is_typed_can_be_read_and_no_more_than_the_buffer_is_kept() {
        let (mut serial, _screen) = serial();
        let taken = serial.input(&[b'x'; 1000]);
        assert!(taken < 100, "{taken}");
        let mut read = 0;
        while serial.read(5) & 1 == 1 {
            serial.read(0);
            read += 1;
        }
        assert_eq!(read, taken);
    }

    #[test]
    fn no_access_panics() {
        let (mut serial, _screen) = serial();
        for offset in 0..=u8::MAX {
            serial.write(offset, 0xff);
            serial.read(offset);
        }
    }
}
