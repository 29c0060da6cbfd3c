// SPDX-License-Identifier: Apache-2.0
//! A guest kernel of our own does to each device what no driver would (`tests/attacker`): the machine lives through it, is
//! quiet afterwards, has not grown, ends when it is told to, and its neighbour goes on.
//!
//! A sequence is made from a seed and its number, so that what is found is found again: the failure names both.

use crate::support::attacker::{Attack, Deed, Device, Orders, Part, STOPS_WITHIN, Traces};
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

fn survives_sequences(device: Device, count: u64) -> Traces {
    let host = Host::new();
    let orders = Orders { count, ..Orders::new(Deed::Sequences, device) };
    let traces = Attack::start(&host, orders).judge();
    assert_eq!((traces.told("done sequences "), traces.told(" honest ")), (count, honest(&orders)));
    traces
}

/// One sequence in so many is followed by an honest request.
fn honest(orders: &Orders) -> u64 {
    (orders.first + orders.count) / 250 - orders.first / 250
}

/// The requests that are answered out of any share's files: LOOKUP, GETATTR, OPEN, READ, STATFS, LISTXATTR, OPENDIR, READDIR,
/// READDIRPLUS, LSEEK.
const SERVED: [u32; 10] = [1, 3, 14, 15, 17, 23, 27, 28, 44, 46];
/// Only where there is a link to read.
const READLINK: u32 = 5;

/// Survives them; and not because all of it ended at the server's door, or before there was a session.
fn share_survives_sequences(device: Device) -> Traces {
    let count = sequences();
    let traces = survives_sequences(device, count);
    let (sent, reached, mapped) = (traces.told("requests "), traces.told(" reached "), traces.mapped);
    tell(&format!(
        "{device:?}: {reached} of {sent} requests reached files, of which {mapped} pieces are mapped"
    ));
    assert!(sent > count && reached * 4 > sent, "{reached} of {sent}");
    for opcode in SERVED {
        assert!(served(&traces, opcode) >= count / 1000, "{opcode}: {}", traces.console);
    }
    assert!(mapped > 0, "no file was ever mapped");
    traces
}

fn served(traces: &Traces, opcode: u32) -> u64 {
    traces.told(&format!("served {opcode} "))
}

#[test]
fn the_boot_share_survives_any_sequence_and_serves_on() {
    share_survives_sequences(Device::Boot).run.expect(143);
}

#[test]
fn the_image_share_survives_any_sequence_and_serves_on() {
    let traces = share_survives_sequences(Device::Image);
    assert!(served(&traces, READLINK) >= sequences() / 1000, "{}", traces.console);
    traces.run.expect(143);
}

#[test]
fn the_socket_device_survives_any_sequence_and_serves_on() {
    // Ten times as many with the connection: below.
    survives_sequences(Device::Vsock, sequences() / 10).run.expect(143);
}

#[test]
fn the_entropy_device_survives_any_sequence_and_serves_on() {
    survives_sequences(Device::Rng, sequences()).run.expect(143);
}

/// Of each queue's shapes. The others may be sound for one kind of device or another.
const MUST_BE_REFUSED: u64 = 36;

#[test]
fn every_shape_of_a_chain_and_of_a_ring_is_refused_or_given_back() {
    for device in Device::ALL {
        let host = Host::new();
        let traces = Attack::start(&host, Orders::new(Deed::Shapes, device)).judge();
        let queues = if matches!(device, Device::Rng) { 1 } else { 2 };
        assert_eq!(traces.told("done shapes "), queues * 48, "{device:?}");
        assert!(traces.told(" refused ") >= queues * MUST_BE_REFUSED, "{device:?}: {}", traces.console);
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
        attack.wait_for("at ", Duration::from_secs(60));
        attack.goes_on();
        let (run, took) = attack.stop();
        run.expect(143);
        assert!(took < STOPS_WITHIN, "{device:?}: {took:?}");
        host.assert_clean();
    }
}

#[test]
fn the_socket_device_survives_while_the_agents_connection_is_open() {
    let (host, count) = (Host::new(), sequences());
    let orders = Orders { count, ..Orders::agent(Part::AttacksFromWithin) };
    // Until the end the engine has heard nothing that would have made it end the machine.
    let traces = Attack::start(&host, orders).judge();
    assert_eq!((traces.told("done sequences "), traces.told(" honest ")), (count, honest(&orders)));
    traces.run.expect(137);
}

/// How much longer it may be between two beats, on two processors that two guests and a device keep busy.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a neighbour's life is listened to, with and without an attack beside it.
const LISTEN: Duration = Duration::from_secs(4);
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
    for device in Device::ALL {
        let orders = Orders { count: 10_000_000, ..Orders::new(Deed::Sequences, device) };
        let mut attack = Attack::start(&hostile, orders);
        attack.wait_for("at ", Duration::from_secs(30));
        let beside = listen(&beats);
        // An attack that had ended would be no trouble to anybody.
        attack.goes_on();
        attack.stop().0.expect(143);
        tell(&format!("a neighbour's life, alone: {alone:?}, beside an attack on {device:?}: {beside:?}"));
        assert!(beside.median < alone.median * 4, "{device:?}: alone {alone:?}, beside {beside:?}");
        assert!(beside.longest < alone.longest + PAUSE, "{device:?}: alone {alone:?}, beside {beside:?}");
    }
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
