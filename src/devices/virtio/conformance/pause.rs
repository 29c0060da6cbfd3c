// SPDX-License-Identifier: Apache-2.0
//! Every device can be paused, written down and put elsewhere, and its driver notices nothing.

use super::driver::{BUFFERS, Driver, EVENT_IDX, NEXT, WRITE, registers};
use super::{Make, STOP_LIMIT};
use crate::virtio::TransportState;
use crate::virtio::interrupt::USED_BUFFER;
use crate::virtio::status::DEVICE_NEEDS_RESET;
use std::thread;
use std::time::{Duration, Instant};

const LEN: u32 = 64;
/// Buffers of one queue.
const SPACE: u64 = 0x8000;

/// Makes one more chain available, of the next descriptor of the ring; gives its head.
pub(crate) fn post(driver: &mut Driver, queue: usize) -> u32 {
    let head = driver.available(queue) % driver.size(queue);
    let buffer = BUFFERS + SPACE * u64::try_from(queue).unwrap() + u64::from(LEN) * u64::from(head);
    driver.describe(queue, head, (buffer, LEN), (WRITE, 0));
    driver.offer(queue, head);
    u32::from(head)
}

/// One request and its answer. With EVENT_IDX it kicks only where the device wants it.
pub(crate) fn ask(driver: &mut Driver, queue: usize, without: u64) {
    let index = driver.available(queue);
    let head = post(driver, queue);
    if without != 0 || driver.avail_event(queue) == index {
        driver.kick(queue);
    }
    assert_eq!(driver.wait_used(queue).0, head);
}

fn started(make: Make, without: u64) -> Driver {
    let mut driver = Driver::new(make());
    driver.negotiate_without(without);
    driver.set_up_queues();
    driver.write(registers::STATUS, 15);
    driver
}

/// Through text, into a device that nobody has touched.
fn elsewhere(mut driver: Driver, make: Make) -> Driver {
    let text = serde_json::to_string(&driver.transport.save().unwrap()).unwrap();
    let state: TransportState = serde_json::from_str(&text).unwrap();
    let before = all_registers(&mut driver);
    let mut driver = driver.moved(make());
    driver.transport.restore(&state).unwrap();
    assert_eq!(all_registers(&mut driver), before);
    assert_eq!(driver.transport.save().unwrap(), state);
    driver
}

fn all_registers(driver: &mut Driver) -> Vec<u32> {
    (0..0x200).step_by(4).map(|register| driver.read(register)).collect()
}

/// Nothing is used for long enough that it would have been.
fn assert_idle(driver: &mut Driver, queue: usize) {
    thread::sleep(Duration::from_millis(5));
    assert_eq!(driver.take_used(queue), None);
}

fn wait_for_interrupt(driver: &mut Driver) {
    let started = Instant::now();
    while driver.read(registers::INTERRUPT_STATUS) & USED_BUFFER == 0 || driver.interrupts() == 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "no interrupt");
        thread::yield_now();
    }
}

pub(crate) fn it_goes_on_where_it_was_here_or_elsewhere(make: Make, serves: &[usize]) {
    for queue in serves {
        for (without, moves) in [(0, false), (0, true), (EVENT_IDX, false), (EVENT_IDX, true)] {
            it_goes_on(make, *queue, without, moves);
        }
    }
}

fn it_goes_on(make: Make, queue: usize, without: u64, moves: bool) {
    let mut driver = started(make, without);
    let rounds = driver.size(queue) + 3;
    (0..rounds).for_each(|_| ask(&mut driver, queue, without));
    driver.transport.pause();
    driver.write(registers::INTERRUPT_ACK, USED_BUFFER);
    driver.interrupts();
    let heads = [(); 2].map(|()| post(&mut driver, queue));
    driver.set_used_event(queue, rounds);
    driver.kick(queue);
    assert_idle(&mut driver, queue);
    if moves {
        driver = elsewhere(driver, make);
        assert_idle(&mut driver, queue);
    }
    driver.transport.resume().unwrap();
    assert_eq!(heads.map(|_| driver.wait_used(queue).0), heads);
    wait_for_interrupt(&mut driver);
    (0..rounds).for_each(|_| ask(&mut driver, queue, without));
    driver.transport.pause();
    assert_eq!(driver.used_index(queue), 2 * rounds + 2);
}

/// It is deaf, through pauses and moves, as it would have been without them.
pub(crate) fn a_broken_one_stays_broken_until_a_reset(make: Make, serves: &[usize]) {
    let queue = serves[0];
    let mut driver = started(make, 0);
    driver.describe(queue, 0, (BUFFERS, LEN), (NEXT, 0));
    driver.offer(queue, 0);
    driver.kick(queue);
    while !driver.needs_reset() {
        thread::yield_now();
    }
    for _ in 0..2 {
        driver.transport.pause();
        driver = elsewhere(driver, make);
        driver.transport.resume().unwrap();
        assert!(driver.interrupts() > 0, "the driver may not know yet");
        assert_eq!(driver.read(registers::STATUS), 15 | DEVICE_NEEDS_RESET);
        driver.describe(queue, 0, (BUFFERS, LEN), (WRITE, 0));
        driver.kick(queue);
        assert_idle(&mut driver, queue);
    }
    driver.stop_within(STOP_LIMIT);
    driver.start();
    ask(&mut driver, queue, 0);
}

pub(crate) fn its_driver_goes_on_from_every_stage(make: Make, serves: &[usize]) {
    let queue = serves[0];
    for stage in [0, 1, 3, 11, 15, 15 | 128] {
        let mut driver = Driver::new(make());
        driver.reach(stage);
        driver.transport.pause();
        driver = elsewhere(driver, make);
        driver.transport.resume().unwrap();
        assert_eq!(driver.read(registers::STATUS), stage);
        if stage == 11 {
            driver.write(registers::STATUS, 15);
            ask(&mut driver, queue, 0);
        }
        driver.stop_within(STOP_LIMIT);
        driver.start();
        ask(&mut driver, queue, 0);
    }
}

/// No driver does, for its vCPUs are stopped first; still nothing is lost, and nothing runs before its time.
pub(crate) fn a_driver_that_comes_while_it_is_paused_waits(make: Make, serves: &[usize]) {
    let queue = serves[0];
    let mut driver = started(make, 0);
    ask(&mut driver, queue, 0);
    driver.transport.pause();
    driver.stop_within(STOP_LIMIT);
    driver.start();
    let head = post(&mut driver, queue);
    driver.kick(queue);
    assert_idle(&mut driver, queue);
    driver.transport.resume().unwrap();
    assert_eq!(driver.wait_used(queue).0, head);
    driver.transport.pause();
    driver.write(registers::STATUS, 15 | 128);
    post(&mut driver, queue);
    driver.transport.resume().unwrap();
    assert_idle(&mut driver, queue);
}

/// Any writes at all, and before those that `pauses` has a bit for: a pause, a way elsewhere, or the end of the pause.
pub(crate) fn no_pause_upsets_it(make: Make, accesses: &[(u64, u32)], pauses: u64) {
    let mut driver = Driver::new(make());
    driver.reach([0, 3, 11, 15][usize::try_from(pauses % 4).unwrap()]);
    for (n, (offset, value)) in (0..).zip(accesses) {
        match pauses.rotate_right(n) & 0b11111 {
            0b001 => driver.transport.pause(),
            0b011 if driver.transport.save().is_ok() => driver = elsewhere(driver, make),
            0b101 => driver.transport.resume().unwrap(),
            _ => {}
        }
        driver.write(*offset, *value);
        driver.read(*offset);
    }
    driver.transport.resume().unwrap();
    driver.stop_within(STOP_LIMIT);
    driver.start();
    assert_eq!(driver.read(registers::STATUS), 15);
}
