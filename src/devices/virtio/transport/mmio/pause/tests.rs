// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::virtio::conformance::driver::{Driver, HIGH_END, registers};
use crate::virtio::conformance::pause::ask;
use crate::virtio::rng::Rng;
use serde_json::{Value, json};
use std::time::Duration;

fn paused() -> Driver {
    let mut driver = Driver::new(Box::new(Rng::new()));
    driver.start();
    ask(&mut driver, 0, 0);
    driver.transport.pause();
    driver
}

#[test]
fn there_is_no_state_of_what_is_not_paused() {
    let mut driver = paused();
    driver.transport.resume().unwrap();
    assert_eq!(driver.transport.save(), Err(SaveError::NotPaused));
}

#[test]
fn pausing_and_resuming_twice_is_as_good_as_once() {
    let mut driver = paused();
    let state = driver.transport.save().unwrap();
    driver.transport.pause();
    assert_eq!(driver.transport.save().unwrap(), state);
    for _ in 0..2 {
        driver.transport.resume().unwrap();
        ask(&mut driver, 0, 0);
    }
}

#[test]
fn a_state_can_be_had_of_a_machine_that_goes_on() {
    let mut driver = paused();
    let state = driver.transport.save().unwrap();
    driver.transport.resume().unwrap();
    ask(&mut driver, 0, 0);
    driver.transport.pause();
    assert_ne!(driver.transport.save().unwrap(), state);
}

#[test]
fn an_interrupt_the_driver_has_not_acknowledged_is_given_again() {
    let mut driver = paused();
    driver.interrupts();
    assert_eq!(driver.read(registers::INTERRUPT_STATUS), USED_BUFFER);
    driver.transport.resume().unwrap();
    assert_eq!(driver.interrupts(), 1);
    driver.transport.pause();
    driver.write(registers::INTERRUPT_ACK, USED_BUFFER);
    driver.transport.resume().unwrap();
    assert_eq!(driver.interrupts(), 0);
}

#[test]
fn a_transport_a_driver_has_touched_takes_no_state() {
    let mut driver = paused();
    let state = driver.transport.save().unwrap();
    for stage in [1, 15] {
        driver.reach(stage);
        assert!(matches!(driver.transport.restore(&state), Err(RestoreError::NotFresh)));
    }
    driver.stop_within(Duration::from_secs(1));
    driver.transport.restore(&state).unwrap();
}

#[test]
fn a_state_that_cannot_be_is_refused_by_the_name_of_its_field() {
    let good = serde_json::to_value(paused().transport.save().unwrap()).unwrap();
    let out = HIGH_END - 16;
    let table: [(&str, Value, &str); 19] = [
        ("/kind", json!(26), "kind: "),
        ("/registers/accepted/bits", json!(0), "accepted: "),
        ("/registers/accepted/bits", json!(u64::MAX), "accepted: "),
        ("/registers/accepted/unknown", json!(true), "accepted: "),
        ("/registers/queues", json!([]), "queues: "),
        ("/registers/queues/0/max", json!(16), "queues[0].max: "),
        ("/registers/queues/0/size", json!(0), "queues[0].size: "),
        ("/registers/queues/0/size", json!(3), "queues[0].size: "),
        ("/registers/queues/0/size", json!(16), "queues[0].size: "),
        ("/registers/queues/0/size", json!(0x1_0008), "queues[0].size: "),
        ("/registers/queues/0/descriptors", json!(out), "queues[0].descriptors: "),
        ("/registers/queues/0/driver", json!(out), "queues[0].driver: "),
        ("/registers/queues/0/device", json!(out), "queues[0].device: "),
        ("/registers/queues/0/ready", json!(false), "queues[0].ready: "),
        ("/registers/status/stage", json!("Driver"), "queues[0].ready: "),
        ("/registers/status/failed", json!(true), "positions: "),
        ("/positions", json!([]), "positions: "),
        ("/interrupt/status", json!(4), "interrupt.status: "),
        ("/device", json!({"Fs": {"session": null}}), "device: "),
    ];
    for (place, value, expected) in table {
        let mut state = good.clone();
        *state.pointer_mut(place).unwrap() = value;
        let state: TransportState = serde_json::from_value(state).unwrap();
        let mut driver = Driver::new(Box::new(Rng::new()));
        let refused = driver.transport.restore(&state).unwrap_err().to_string();
        assert!(refused.starts_with(expected), "{place}: {refused}");
        driver.start();
        ask(&mut driver, 0, 0);
    }
}

#[test]
fn only_a_device_that_was_started_can_need_a_reset() {
    let mut driver = Driver::new(Box::new(Rng::new()));
    driver.transport.pause();
    let mut state = driver.transport.save().unwrap();
    state.interrupt.needs_reset = true;
    let refused = driver.transport.restore(&state).unwrap_err();
    assert_eq!(refused.to_string(), "interrupt.needs_reset: a device that was never started");
}
