// SPDX-License-Identifier: Apache-2.0
//! States no device was ever in: one that was, as text, with some of its values changed. It is refused, or the device goes
//! on and keeps to its memory; either way a reset makes it new.

use super::driver::{BUFFERS, Driver, HIGH_END, HIGH_START, LOW_END, RING_SPACE, RINGS, registers};
use super::pause::{ask, post};
use super::{Make, STOP_LIMIT};
use crate::virtio::TransportState;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

/// Which value, of those there are, and what becomes of it.
pub(crate) type Change = (usize, usize, u64);

pub(crate) fn any_changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(any::<Change>(), 1..4)
}

pub(crate) fn no_state_upsets_it(make: Make, serves: &[usize], changes: &[Change]) {
    let mut driver = Driver::new(make());
    driver.start();
    for queue in serves {
        (0..5).for_each(|_| ask(&mut driver, *queue, 0));
    }
    driver.transport.pause();
    for queue in serves {
        post(&mut driver, *queue);
    }
    let mut value = serde_json::to_value(driver.transport.save().unwrap()).unwrap();
    changes.iter().for_each(|change| apply(&mut value, change));
    let mut driver = driver.moved(make());
    let restored = serde_json::from_value::<TransportState>(value)
        .is_ok_and(|state| driver.transport.restore(&state).is_ok());
    if restored {
        driver.transport.resume().unwrap();
        (0..driver.queues()).for_each(|queue| driver.kick(queue));
        thread::sleep(Duration::from_micros(200));
        driver.transport.pause();
        assert_kept_to_its_memory(&driver);
        driver.transport.resume().unwrap();
    } else {
        assert_eq!(driver.read(registers::STATUS), 0);
    }
    driver.stop_within(STOP_LIMIT);
    driver.start();
    assert_eq!(driver.read(registers::STATUS), 15);
    ask(&mut driver, serves[0], 0);
}

/// Only rings and buffers were ever written; all other memory is as it was made.
fn assert_kept_to_its_memory(driver: &Driver) {
    let rings_end = RINGS + RING_SPACE * u64::try_from(driver.queues()).unwrap();
    for (start, end) in [(0, RINGS), (rings_end, BUFFERS), (HIGH_START, HIGH_END)] {
        let zeros = vec![0; usize::try_from(end - start).unwrap()];
        let mut bytes = zeros.clone();
        driver.memory.read_slice(&mut bytes, GuestAddress(start)).unwrap();
        assert!(bytes == zeros, "something between {start:#x} and {end:#x}");
    }
}

fn apply(value: &mut Value, (which, how, random): &Change) {
    let mut places = Vec::new();
    find(value, String::new(), &mut places);
    let place = &places[which % places.len()];
    let key = place.rsplit('/').next().unwrap_or_default();
    let Some(value) = value.pointer_mut(place) else { return };
    *value = changed(value, key, *how, *random);
}

/// Where all the values are.
fn find(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                find(value, format!("{at}/{key}"), places);
            }
        }
        Value::Array(items) => {
            for (n, value) in items.iter().enumerate() {
                find(value, format!("{at}/{n}"), places);
            }
            places.push(at);
        }
        _ => places.push(at),
    }
}

fn changed(value: &Value, key: &str, how: usize, random: u64) -> Value {
    const WORDS: [&str; 12] = [
        "Reset",
        "Acknowledged",
        "Driver",
        "Negotiated",
        "Running",
        "Idle",
        "Connected",
        "GuestDone",
        "HostDone",
        "Draining",
        "Closed",
        "Rng",
    ];
    const NUMBERS: [u64; 14] =
        [0, 1, 2, 3, 4, 8, 15, 64, 256, 0x8000, 0xffff, 0x1_0000, 0xffff_ffff, u64::MAX];
    match value {
        Value::Bool(is) => json!(!is),
        Value::String(_) => json!(WORDS[how % WORDS.len()]),
        Value::Array(items) if how.is_multiple_of(2) => json!(items.split_last().map(|(_, rest)| rest)),
        Value::Array(items) => json!(items.iter().chain(items.last()).collect::<Vec<_>>()),
        // A queue that lies elsewhere in memory would be right in its way: these are outside, or hardly moved.
        Value::Number(_) | Value::Null if ["descriptors", "driver", "device"].contains(&key) => {
            let moved = value.as_u64().filter(|at| *at >= RINGS).map_or(0, |at| at.wrapping_add(16));
            let places = [0, 1, moved, LOW_END, HIGH_END, u64::MAX - 15];
            json!(places[how % places.len()])
        }
        Value::Number(_) if how.is_multiple_of(8) => Value::Null,
        Value::Number(_) if how % 8 == 1 => json!(random),
        Value::Number(number) if how % 8 == 2 => {
            json!(number.as_u64().unwrap_or_default() ^ 1 << (random % 32))
        }
        Value::Number(_) | Value::Null => json!(NUMBERS[(how / 8) % NUMBERS.len()]),
        Value::Object(_) => Value::Null,
    }
}
