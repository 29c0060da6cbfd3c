// SPDX-License-Identifier: Apache-2.0
//! What every device must stand, whatever it is: `suite!` makes the tests, given how to make the device.
//!
//! ```ignore
//! conformance::suite!(|| Box::new(Rng::new()), serves: [0]);
//! ```
//! `serves` are the queues whose chains the device takes as soon as they are there; of a broken one in those it must say
//! so. In the others it may find out later, or never.

#![allow(clippy::unwrap_used, reason = "a test's scaffolding, built outside of tests for fuzzing only")]

pub mod driver;
#[cfg(test)]
pub(crate) mod pause;
pub mod shapes;
#[cfg(test)]
pub(crate) mod states;

use super::VirtioDevice;
use super::status::DEVICE_NEEDS_RESET;
use super::transport::mmio::QUEUE_NOTIFY;
use driver::{Driver, registers};
use shapes::{SHAPES, Verdict};
use std::time::{Duration, Instant};

pub type Make<'m> = &'m dyn Fn() -> Box<dyn VirtioDevice>;

/// Longest a stop may take, on a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(1);

pub fn it_says_what_it_is(make: Make) {
    let kind = make().kind();
    let mut driver = Driver::new(make());
    assert_eq!(driver.read(registers::MAGIC), 0x7472_6976);
    assert_eq!(driver.read(registers::VERSION), 2);
    assert_eq!(driver.read(registers::DEVICE_ID), kind);
    assert_eq!(driver.read(registers::STATUS), 0);
    for (select, expected) in [(1, 1), (2, 0), (u32::MAX, 0)] {
        driver.write(registers::DEVICE_FEATURES_SEL, select);
        assert_eq!(driver.read(registers::DEVICE_FEATURES), expected, "features word {select}");
    }
}

pub fn its_registers_take_words_only(make: Make) {
    let mut driver = Driver::new(make());
    for len in [0, 1, 2, 3, 5, 8, 16] {
        let mut data = vec![0xaa; len];
        driver.transport.read(registers::MAGIC, &mut data);
        assert_eq!(data, vec![0; len]);
        driver.transport.write(registers::STATUS, &vec![1; len]);
        assert_eq!(driver.read(registers::STATUS), 0);
    }
    for offset in (0..0x100).filter(|offset| offset % 4 != 0) {
        assert_eq!(driver.read(offset), 0, "{offset:#x}");
    }
    for offset in [0xb0, 0xb4, 0xb8, 0xbc] {
        assert_eq!(driver.read(offset), u32::MAX, "no shared memory");
    }
}

pub fn its_configuration_can_be_read_anywhere(make: Make) {
    let mut driver = Driver::new(make());
    for len in [1, 2, 4, 8, 3, 7] {
        for offset in (0x100..0x200).chain([0xff8, 0xfff, u64::MAX - 8, u64::MAX]) {
            driver.transport.read(offset, &mut vec![0xaa; len]);
            driver.transport.write(offset, &vec![0xaa; len]);
        }
    }
    let mut beyond = [0xaa; 8];
    driver.transport.read(0xf00, &mut beyond);
    assert_eq!(beyond, [0; 8]);
}

pub fn it_starts_and_stops_any_number_of_times(make: Make) {
    let mut driver = Driver::new(make());
    for _ in 0..50 {
        driver.start();
        assert_eq!(driver.read(registers::STATUS), 15);
        driver.stop_within(STOP_LIMIT);
    }
}

pub fn it_does_not_start_on_a_queue_that_is_not_right(make: Make) {
    let max = u32::from(make().queue_sizes()[0]);
    let sizes = [0, 3, max + 1, max * 2, 0x8000, 0xffff, 0x1_0000, 0x1_0000 + max, u32::MAX];
    for size in sizes {
        assert_refused(make, registers::QUEUE_NUM, size);
    }
    let low = [registers::DESC_LOW, registers::DRIVER_LOW, registers::DEVICE_LOW];
    for register in low {
        for address in
            [0, 1, 0x9001, driver::LOW_END, driver::LOW_END - 16, driver::HIGH_END, 0xffff_fff0, 0xffff_ffff]
        {
            assert_refused(make, register, u32::try_from(address).unwrap());
        }
        for high in [1, 0x7fff_ffff, u32::MAX] {
            assert_refused(make, register + 4, high);
        }
    }
}

/// The first queue, with one register wrong, is not ready, and the device asks for a reset instead of starting.
fn assert_refused(make: Make, register: u64, value: u32) {
    let mut driver = Driver::new(make());
    driver.negotiate();
    driver.set_up_queues();
    driver.write(registers::QUEUE_SEL, 0);
    driver.write(registers::QUEUE_READY, 0);
    driver.write(register, value);
    driver.write(registers::QUEUE_READY, 1);
    assert_eq!(driver.read(registers::QUEUE_READY), 0, "register {register:#x} = {value:#x}");
    driver.write(registers::STATUS, 15);
    assert_eq!(
        driver.read(registers::STATUS),
        15 | DEVICE_NEEDS_RESET,
        "register {register:#x} = {value:#x}"
    );
    driver.stop_within(STOP_LIMIT);
    driver.start();
    assert_eq!(driver.read(registers::STATUS), 15);
}

/// The class of CVE-2026-5747: ring registers rewritten when they may no longer be.
pub fn its_queues_stand_still_outside_their_window(make: Make) {
    for stage in [0, 1, 3, 11, 15, 15 | 128] {
        let mut driver = Driver::new(make());
        driver.reach(stage);
        let before = driver.queue_state();
        for register in registers::OF_A_QUEUE {
            for value in [0, 1, 2, 0x7fff, 0xffff, u32::MAX] {
                if stage == 11 && register == registers::QUEUE_READY && value == 0 {
                    continue;
                }
                driver.write(register, value);
            }
        }
        // With the window open the queues are ready, and so as deaf; but a ready that is not 1 takes it back.
        if stage != 11 {
            assert_eq!(driver.queue_state(), before, "stage {stage}");
        }
        driver.stop_within(STOP_LIMIT);
    }
}

/// Ready is ready: what is written afterwards, in the window or not, is not what the device gets.
pub fn its_ready_queues_stand_still_in_their_window(make: Make) {
    for register in registers::OF_A_QUEUE.into_iter().filter(|register| *register != registers::QUEUE_READY) {
        let mut driver = Driver::new(make());
        driver.reach(11);
        driver.write(register, u32::MAX);
        driver.write(registers::STATUS, 15);
        assert_eq!(driver.read(registers::STATUS), 15, "{register:#x}");
    }
}

/// Set up before the features are agreed on, a queue is not set up at all.
pub fn its_queues_cannot_be_set_up_too_early(make: Make) {
    for stage in [0, 1, 3] {
        let mut driver = Driver::new(make());
        driver.reach(stage);
        driver.write_queues();
        for (_, ready) in driver.queue_state() {
            assert_eq!(ready, 0, "stage {stage}");
        }
        if stage == 3 {
            driver.write(registers::DRIVER_FEATURES_SEL, 1);
            driver.write(registers::DRIVER_FEATURES, 1);
            driver.write(registers::STATUS, 11);
            driver.write(registers::QUEUE_READY, 1);
            assert_eq!(driver.read(registers::QUEUE_READY), 0);
        }
    }
}

pub fn any_number_can_be_notified(make: Make) {
    for stage in [0, 11, 15] {
        let mut driver = Driver::new(make());
        driver.reach(stage);
        // Around each power of two, and so around each sign there could be (CVE-2011-2512).
        let edges = (0..u32::BITS).map(|bit| 1u32 << bit);
        for value in edges.flat_map(|edge| [edge - 1, edge, edge + 1, edge.wrapping_neg()]) {
            driver.write(QUEUE_NOTIFY, value);
        }
        driver.stop_within(STOP_LIMIT);
    }
}

pub fn it_refuses_features_it_did_not_offer(make: Make) {
    for (select, value) in [(0, u32::MAX), (1, u32::MAX), (1, 0), (2, 1), (u32::MAX, 1)] {
        let mut driver = Driver::new(make());
        driver.write(registers::STATUS, 1);
        driver.write(registers::STATUS, 3);
        driver.write(registers::DRIVER_FEATURES_SEL, 1);
        driver.write(registers::DRIVER_FEATURES, 1);
        driver.write(registers::DRIVER_FEATURES_SEL, select);
        driver.write(registers::DRIVER_FEATURES, value);
        driver.write(registers::STATUS, 11);
        assert_eq!(driver.read(registers::STATUS), 3, "word {select} = {value:#x}");
    }
}

/// Every malformed chain, in every queue, with and without EVENT_IDX; after it the device stops at once and can start anew.
pub fn it_survives_malformed_chains(make: Make, serves: &[usize]) {
    for shape in SHAPES {
        for queue in 0..make().queue_sizes().len() {
            let mut driver = Driver::new(make());
            driver.start();
            (shape.lay)(&mut driver, queue);
            driver.kick(queue);
            if serves.contains(&queue) {
                let said = driver.wait_for_verdict(queue);
                assert_eq!(said, shape.verdict, "{} in queue {queue}", shape.name);
            }
            driver.stop_within(STOP_LIMIT);
            driver.start();
            assert_eq!(driver.read(registers::STATUS), 15, "{} in queue {queue}", shape.name);
        }
    }
}

pub fn it_refuses_an_available_index_that_runs_away(make: Make, serves: &[usize]) {
    for queue in serves {
        let size = make().queue_sizes()[*queue];
        for jump in [size + 1, size * 2, 0x7fff, 0x8000, 0xffff] {
            let mut driver = Driver::new(make());
            driver.start();
            driver.set_available_index(*queue, jump);
            driver.kick(*queue);
            assert_eq!(driver.wait_for_verdict(*queue), Verdict::NeedsReset, "by {jump}");
            driver.stop_within(STOP_LIMIT);
        }
    }
}

/// Chains of every kind under way, half of them broken, when the reset comes.
pub fn it_can_be_reset_with_work_under_way(make: Make) {
    let mut driver = Driver::new(make());
    for round in 0..200 {
        driver.start();
        for queue in 0..driver.queues() {
            let good = SHAPES.iter().filter(|shape| shape.verdict == Verdict::Used);
            if let Some(shape) = good.cycle().nth(round) {
                (shape.lay)(&mut driver, queue);
            }
            driver.kick(queue);
        }
        driver.stop_within(STOP_LIMIT);
    }
}

/// Any writes at all, to the likely registers and the others.
pub fn no_sequence_of_accesses_upsets_it(make: Make, accesses: &[(u64, u32)]) {
    let started = Instant::now();
    let mut driver = Driver::new(make());
    driver
        .reach(accesses.first().map_or(0, |(_, value)| [0, 3, 11, 15][usize::try_from(value % 4).unwrap()]));
    for (offset, value) in accesses {
        driver.write(*offset, *value);
        driver.read(*offset);
    }
    driver.stop_within(STOP_LIMIT);
    driver.start();
    assert_eq!(driver.read(registers::STATUS), 15);
    assert!(started.elapsed() < 5 * STOP_LIMIT);
}

/// The tests of this module for one device.
#[cfg(test)]
macro_rules! suite {
    ($make:expr, serves: $serves:expr) => {
        mod conformance_suite {
            use super::*;
            use crate::virtio::conformance as check;
            use proptest::prelude::{any, proptest};

            fn make() -> Box<dyn $crate::virtio::VirtioDevice> {
                let make = $make;
                make()
            }

            $crate::virtio::conformance::suite!(@plain
                it_says_what_it_is
                its_registers_take_words_only
                its_configuration_can_be_read_anywhere
                it_starts_and_stops_any_number_of_times
                it_does_not_start_on_a_queue_that_is_not_right
                its_queues_stand_still_outside_their_window
                its_ready_queues_stand_still_in_their_window
                its_queues_cannot_be_set_up_too_early
                any_number_can_be_notified
                it_refuses_features_it_did_not_offer
                it_can_be_reset_with_work_under_way
            );

            #[test]
            fn it_goes_on_where_it_was_here_or_elsewhere() {
                check::pause::it_goes_on_where_it_was_here_or_elsewhere(&make, &$serves);
            }

            #[test]
            fn a_broken_one_stays_broken_until_a_reset() {
                check::pause::a_broken_one_stays_broken_until_a_reset(&make, &$serves);
            }

            #[test]
            fn its_driver_goes_on_from_every_stage() {
                check::pause::its_driver_goes_on_from_every_stage(&make, &$serves);
            }

            #[test]
            fn a_driver_that_comes_while_it_is_paused_waits() {
                check::pause::a_driver_that_comes_while_it_is_paused_waits(&make, &$serves);
            }

            #[test]
            fn it_survives_malformed_chains() {
                check::it_survives_malformed_chains(&make, &$serves);
            }

            #[test]
            fn it_refuses_an_available_index_that_runs_away() {
                check::it_refuses_an_available_index_that_runs_away(&make, &$serves);
            }

            proptest! {
                #[test]
                fn no_sequence_of_accesses_upsets_it(accesses in check::driver::any_accesses()) {
                    check::no_sequence_of_accesses_upsets_it(&make, &accesses);
                }

                #[test]
                fn no_pause_upsets_it(accesses in check::driver::any_accesses(), pauses in any::<u64>()) {
                    check::pause::no_pause_upsets_it(&make, &accesses, pauses);
                }

                #[test]
                fn no_state_upsets_it(changes in check::states::any_changes()) {
                    check::states::no_state_upsets_it(&make, &$serves, &changes);
                }
            }
        }
    };
    (@plain $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check::$name(&make);
            }
        )*
    };
}

#[cfg(test)]
pub(crate) use suite;
