// SPDX-License-Identifier: Apache-2.0
//! The entropy device (§5.4): random bytes of the host's kernel, as many as the driver has room for.
//!
//! A request is cut at `MAX_REQUEST`: a driver that asks for 4 GiB gets a short answer, which the specification allows,
//! and costs the host no more than a buffer on the stack.

mod calls;

use super::chain::{Broken, Chain};
use super::worker::{Engine, Handler, Port, Wake};
use super::{Bound, BoundQueue, DeviceState, GuestMemory, RestoreError, SaveError, StartError, VirtioDevice};
use isopod_sys::confined::Closing;
use isopod_sys::seccomp::Rule;
use rustix::rand::{GetRandomFlags, getrandom};

/// What its thread is called.
pub(super) const THREAD: &str = "rng";
const DEVICE_ID: u32 = 4;
/// Linux has one request under way.
const QUEUE_SIZE: u16 = 8;
/// Most bytes one request gets; Linux asks for 64 or 32 at a time.
const MAX_REQUEST: usize = 4096;

#[derive(Debug)]
pub struct Rng(Engine<Source>);

#[derive(Debug)]
pub(super) struct Source;

impl Rng {
    pub fn new() -> Self {
        Self(Engine::new(Source))
    }
}

impl Default for Rng {
    fn default() -> Self {
        Self::new()
    }
}

impl VirtioDevice for Rng {
    fn kind(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn man(&mut self, confined: bool) -> Result<Option<Closing>, StartError> {
        self.0.man(THREAD, confined)
    }

    fn start(&mut self, bound: Bound) -> Result<(), StartError> {
        self.0.start(THREAD, bound)
    }

    fn stop(&mut self) -> Vec<BoundQueue> {
        self.0.stop()
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<DeviceState, SaveError> {
        Ok(DeviceState::Rng)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        if matches!(state, DeviceState::Rng) { Ok(()) } else { Err(RestoreError::OTHER_DEVICE) }
    }
}

impl Handler for Source {
    const CALLS: &'static [Rule] = calls::CALLS;

    fn wake(&mut self, wake: Wake, port: &mut Port) -> Result<(), Broken> {
        let Wake::Kick(queue) = wake else { return Ok(()) };
        port.serve(queue, fill)
    }
}

fn fill(memory: &GuestMemory, chain: &Chain) -> usize {
    let mut bytes = [0; MAX_REQUEST];
    let want = chain.writable_len().min(MAX_REQUEST);
    // Never short in practice once the host's pool is ready; if it is, the driver asks again.
    let got = getrandom(&mut bytes[..want], GetRandomFlags::empty()).unwrap_or(0);
    chain.write(memory, 0, &bytes[..got])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::conformance;
    use crate::virtio::conformance::driver::{BUFFERS, Driver, EVENT_IDX, HIGH_START, WRITE, registers};
    use std::time::Duration;
    use vm_memory::{Bytes, GuestAddress};

    conformance::suite!(|| Box::new(Rng::new()), serves: [0]);

    fn ask(driver: &mut Driver, len: u32) -> u32 {
        driver.describe(0, 0, (HIGH_START, len), (WRITE, 0));
        driver.offer(0, 0);
        driver.kick(0);
        driver.wait_used(0).1
    }

    #[test]
    fn a_request_is_filled_with_bytes_that_differ() {
        let mut driver = Driver::new(Box::new(Rng::new()));
        driver.start();
        let mut seen = [[0; 64]; 2];
        for bytes in &mut seen {
            assert_eq!(ask(&mut driver, 64), 64);
            driver.memory.read_slice(bytes, GuestAddress(HIGH_START)).unwrap();
        }
        assert_ne!(seen[0], seen[1]);
        assert_ne!(seen[0], [0; 64]);
    }

    #[test]
    fn a_running_queue_stays_where_it_was_whatever_its_registers_are_told() {
        let mut driver = Driver::new(Box::new(Rng::new()));
        driver.start();
        driver.write(registers::QUEUE_SEL, 0);
        for register in registers::OF_A_QUEUE {
            for value in [0x1_0000, 3, 1, 0] {
                driver.write(register, value);
                assert_eq!(ask(&mut driver, 64), 64, "{register:#x} = {value:#x}");
            }
        }
    }

    #[test]
    fn a_huge_request_is_answered_in_part() {
        let mut driver = Driver::new(Box::new(Rng::new()));
        driver.start();
        assert_eq!(ask(&mut driver, 0x8_0000), 4096);
        let mut behind = [0; 64];
        driver.memory.read_slice(&mut behind, GuestAddress(HIGH_START + 4096)).unwrap();
        assert_eq!(behind, [0; 64]);
    }

    /// More requests than the ring's indices can count, with every way of being told of them.
    #[test]
    fn indices_wrap_and_nobody_waits_for_ever() {
        for without in [0, EVENT_IDX] {
            let mut driver = Driver::new(Box::new(Rng::new()));
            driver.negotiate_without(without);
            driver.set_up_queues();
            driver.write(registers::STATUS, 15);
            driver.describe(0, 0, (BUFFERS, 8), (WRITE, 0));
            for round in 0..70_000u32 {
                driver.offer(0, 0);
                let index = u16::try_from(round & 0xffff).unwrap();
                // A driver with EVENT_IDX kicks only where it was asked to; until the device asks, it is awake.
                if without != 0 || driver.avail_event(0) == index {
                    driver.kick(0);
                }
                if round % 8 == 7 {
                    for _ in 0..8 {
                        driver.wait_used(0);
                    }
                }
            }
        }
    }

    #[test]
    fn with_event_idx_a_driver_is_interrupted_only_where_it_asked() {
        for (requests, interrupts) in [(3, 0), (4, 1), (5, 1)] {
            let mut driver = Driver::new(Box::new(Rng::new()));
            driver.start();
            driver.set_used_event(0, 3);
            for _ in 0..requests {
                ask(&mut driver, 8);
            }
            // Behind the stop nothing is under way any more.
            driver.stop_within(STOP);
            assert_eq!(driver.interrupts(), interrupts);
        }
    }

    const STOP: Duration = Duration::from_secs(1);
}
