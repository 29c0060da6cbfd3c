// SPDX-License-Identifier: Apache-2.0
//! A guest kernel of our own does to each device what no driver would (`tests/attacker`): the machine lives through it, is
//! quiet afterwards, has not grown, ends when it is told to, and its neighbour goes on.
//!
//! A sequence is made from a seed and its number, so that what is found is found again: the failure names both.

use crate::support::attacker::{Attack, Deed, Device, Orders, Part, STOPS_WITHIN};
use crate::support::{Host, tell, times};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A hundred thousand in a usual run.
fn sequences() -> u64 {
    1000 * times(100)
}

fn survives_sequences(device: Device) {
    let host = Host::new();
    let count = sequences();
    let traces = Attack::start(&host, Orders { count, ..Orders::new(Deed::Sequences, device) }).judge();
    assert!(traces.console.contains(&format!("done sequences {count} honest {} odd 0", count / 250)));
    traces.run.expect(143);
}

#[test]
fn the_boot_share_survives_any_sequence_and_serves_on() {
    survives_sequences(Device::Boot);
}

#[test]
fn the_image_share_survives_any_sequence_and_serves_on() {
    survives_sequences(Device::Image);
}

#[test]
fn the_socket_device_survives_any_sequence_and_serves_on() {
    survives_sequences(Device::Vsock);
}

#[test]
fn the_entropy_device_survives_any_sequence_and_serves_on() {
    survives_sequences(Device::Rng);
}

#[test]
fn every_shape_of_a_chain_and_of_a_ring_is_refused_or_given_back() {
    for device in Device::ALL {
        let host = Host::new();
        Attack::start(&host, Orders::new(Deed::Shapes, device)).judge();
    }
}

#[test]
fn no_name_that_is_none_and_no_change_is_served_by_a_share() {
    for device in [Device::Boot, Device::Image] {
        let host = Host::new();
        Attack::start(&host, Orders::new(Deed::Names, device)).judge();
    }
}

#[test]
fn all_ports_and_addresses_but_the_known_ones_read_as_ones() {
    let host = Host::new();
    let traces = Attack::start(&host, Orders::new(Deed::Sweep, Device::Boot)).judge();
    assert!(traces.console.contains("done ports 65536 odd 0"), "{}", traces.console);
}

#[test]
fn an_attack_under_way_is_stopped_within_a_second() {
    for device in [Device::Image, Device::Vsock, Device::Rng] {
        let host = Host::new();
        let orders = Orders { count: 10_000_000, ..Orders::new(Deed::Sequences, device) };
        let mut attack = Attack::start(&host, orders);
        attack.wait_for("at 1000", Duration::from_secs(60));
        let (run, took) = attack.stop();
        run.expect(143);
        assert!(took < STOPS_WITHIN, "{device:?}: {took:?}");
        host.assert_clean();
    }
}

#[test]
fn the_socket_device_survives_while_the_agents_connection_is_open() {
    let (host, count) = (Host::new(), sequences() / 10);
    let orders = Orders { count, ..Orders::agent(Part::AttacksFromWithin) };
    // Until the end the engine has heard nothing that would have made it end the machine.
    Attack::start(&host, orders).judge().run.expect(137);
}

/// How much longer it may be between two beats, on two processors that two guests and a device keep busy.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a neighbour's life is listened to, with and without an attack beside it.
const LISTEN: Duration = Duration::from_secs(8);
/// The beats have a fiftieth of a second between them.
const HEART: &str = "while :; do read -t 0.02 x; echo; done";

#[test]
fn a_neighbour_goes_on_beside_an_attack() {
    let (quiet, hostile) = (Host::new(), Host::new());
    let all = ["run", "--rm", "-i", "-u", "0", "--entrypoint", "", "demo", "sh", "-c", HEART];
    let mut neighbour = quiet.command(&all).stdin(Stdio::piped()).spawn().unwrap();
    let beats = beats_of(&mut neighbour);
    beats.recv_timeout(Duration::from_secs(60)).expect("a first beat");
    let alone = listen(&beats);
    let orders = Orders { count: 10_000_000, ..Orders::new(Deed::Sequences, Device::Image) };
    let mut attack = Attack::start(&hostile, orders);
    attack.wait_for("at 0", Duration::from_secs(30));
    let beside = listen(&beats);
    drop(attack);
    tell(&format!("a neighbour's life, alone: {alone:?}, beside an attack: {beside:?}"));
    assert!(beside.median < alone.median * 4, "alone {alone:?}, beside {beside:?}");
    assert!(beside.longest < alone.longest + PAUSE, "alone {alone:?}, beside {beside:?}");
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
    quiet.assert_clean();
    hostile.assert_clean();
}

/// The median and the longest time between two beats.
#[derive(Debug)]
struct Gaps {
    median: Duration,
    longest: Duration,
}

fn beats_of(neighbour: &mut Child) -> Receiver<Instant> {
    let (to, beats) = channel();
    let out = neighbour.stdout.take().unwrap();
    thread::spawn(move || {
        let lines = BufReader::new(out).lines().map_while(Result::ok);
        lines.map(|_| to.send(Instant::now())).take_while(Result::is_ok).for_each(drop);
    });
    beats
}

fn listen(beats: &Receiver<Instant>) -> Gaps {
    let end = Instant::now() + LISTEN;
    while beats.try_recv().is_ok() {}
    let mut last = Instant::now();
    let mut gaps = Vec::new();
    while last < end {
        let beat = beats.recv_timeout(Duration::from_secs(20)).expect("the neighbour's heart has stopped");
        gaps.push(beat.saturating_duration_since(last));
        last = beat;
    }
    gaps.sort();
    Gaps { median: gaps[gaps.len() / 2], longest: gaps[gaps.len() - 1] }
}
