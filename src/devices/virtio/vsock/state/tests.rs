// SPDX-License-Identifier: Apache-2.0
use super::super::credit::BUF_ALLOC;
use super::super::packet::{Header, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use super::super::tests::guest::{CID, Guest, PORT};
use super::super::{RX, TX, Vsock};
use super::*;
use crate::virtio::{BoundQueue, DeviceState, VirtioDevice};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;
use virtio_queue::QueueT;

fn fresh() -> (Vsock, UnixStream) {
    let (host, agent) = UnixStream::pair().unwrap();
    host.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (Vsock::new(CID, PORT, agent).unwrap(), host)
}

/// The guest's device is another one from here on; gives the other end of its socket.
fn move_device(guest: &mut Guest) -> UnixStream {
    let queues = guest.device.stop();
    move_stopped(guest, queues)
}

fn move_stopped(guest: &mut Guest, queues: Vec<BoundQueue>) -> UnixStream {
    assert_eq!(queues[RX].queue.next_avail(), queues[RX].queue.next_used());
    assert_eq!(queues[TX].queue.next_avail(), queues[TX].queue.next_used());
    let state = serde_json::to_string(&guest.device.save().unwrap()).unwrap();
    let (mut device, host) = fresh();
    device.restore(&serde_json::from_str(&state).unwrap()).unwrap();
    guest.device = device;
    guest.start(queues);
    host
}

#[test]
fn a_connection_goes_on_over_a_new_socket_both_ways() {
    let (mut guest, mut host) = Guest::connected();
    guest.send(Op::Data, b"before");
    host.read_exact(&mut [0; 6]).unwrap();
    host.write_all(b"before, too").unwrap();
    assert_eq!(guest.expect_data(11), b"before, too");
    let mut moved = move_device(&mut guest);
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0, "the old socket is closed");
    moved.write_all(b"after").unwrap();
    let (header, data) = guest.expect(Op::Data);
    assert_eq!((data.as_slice(), header.fwd_cnt, header.buf_alloc), (&b"after"[..], 6, BUF_ALLOC));
    guest.send(Op::Data, b"after, too");
    let mut got = [0; 10];
    moved.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"after, too");
}

#[test]
fn the_guests_room_is_what_it_was() {
    let (mut guest, mut host) = Guest::connected();
    let small = Header { buf_alloc: 1000, ..guest.header(Op::CreditUpdate) };
    guest.send_header(&small, b"");
    guest.wait(|guest| (guest.packets_waiting() == 0).then_some(()));
    host.write_all(&[1; 700]).unwrap();
    guest.expect_data(700);
    let mut moved = move_device(&mut guest);
    moved.write_all(&[2; 5000]).unwrap();
    assert_eq!(guest.expect_data(300), [2; 300]);
    guest.expect_silence();
    guest.send_header(&Header { fwd_cnt: 1000, ..small }, b"");
    assert_eq!(guest.expect_data(1000), [2; 1000]);
}

#[test]
fn the_hosts_room_is_what_it_was() {
    let (mut guest, mut host) = Guest::connected();
    // Just not enough to be told of.
    let most = usize::try_from(BUF_ALLOC / 2).unwrap() - 1;
    for piece in vec![7; most].chunks(50_000) {
        guest.send(Op::Data, piece);
    }
    host.read_exact(&mut vec![0; most]).unwrap();
    let mut moved = move_device(&mut guest);
    guest.expect_silence();
    guest.send(Op::Data, b"x");
    moved.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(guest.expect(Op::CreditUpdate).0.fwd_cnt, BUF_ALLOC / 2);
}

#[test]
fn packets_that_came_while_it_was_stopped_are_taken() {
    let (mut guest, _host) = Guest::connected();
    let queues = guest.device.stop();
    guest.send(Op::Data, b"meanwhile");
    let mut moved = move_stopped(&mut guest, queues);
    let mut got = [0; 9];
    moved.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"meanwhile");
}

#[test]
fn how_far_a_connection_has_ended_is_kept() {
    let (mut guest, host) = Guest::connected();
    guest.shut_down(SHUTDOWN_SEND);
    guest.wait(|guest| (guest.packets_waiting() == 0).then_some(()));
    let mut moved = move_device(&mut guest);
    assert_eq!(moved.read(&mut [0; 1]).unwrap(), 0, "the guest sends no more");
    moved.write_all(b"heard").unwrap();
    assert_eq!(guest.expect_data(5), b"heard");
    guest.shut_down(SHUTDOWN_RECEIVE);
    guest.expect(Op::Reset);
    let mut moved = move_device(&mut guest);
    assert_eq!(moved.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    guest.send(Op::Request, b"");
    guest.expect(Op::Reset);
    drop(host);
}

#[test]
fn a_guest_that_never_connected_still_may() {
    let (mut guest, _host) = Guest::new();
    guest.post(8, 4096);
    let mut moved = move_device(&mut guest);
    guest.send(Op::Request, b"");
    guest.expect(Op::Response);
    guest.send(Op::Data, b"x");
    moved.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn an_answer_that_waits_for_a_buffer_is_given_elsewhere() {
    let (mut guest, _host) = Guest::new();
    guest.send(Op::Request, b"");
    let mut moved = move_device(&mut guest);
    guest.post(8, 4096);
    guest.expect(Op::Response);
    moved.write_all(b"x").unwrap();
    guest.expect_data(1);
}

#[test]
fn there_is_no_state_while_bytes_are_held() {
    let (mut guest, mut host) = Guest::connected();
    let mut sent = 0;
    while guest.credit() > 0 {
        let n = usize::try_from(guest.credit().min(50_000)).unwrap();
        guest.send(Op::Data, &vec![7; n]);
        sent += n;
        thread::sleep(Duration::from_millis(1));
        while guest.try_receive(true).is_some() {}
    }
    let queues = guest.device.stop();
    assert!(matches!(guest.device.save(), Err(SaveError::BytesHeld { bytes }) if bytes > 0));
    guest.start(queues);
    host.read_exact(&mut vec![0; sent]).unwrap();
    guest.expect(Op::CreditUpdate);
    move_device(&mut guest);
}

#[test]
fn there_is_no_state_while_refusals_are_queued() {
    let (mut guest, _host) = Guest::new();
    let stranger = guest.header(Op::Data);
    guest.send_header(&Header { dst_port: 1, ..stranger }, b"");
    guest.wait(|guest| (guest.packets_waiting() == 0).then_some(()));
    let queues = guest.device.stop();
    assert_eq!(guest.device.save(), Err(SaveError::RefusalsQueued { count: 1 }));
    guest.start(queues);
    guest.post(8, 4096);
    guest.expect(Op::Reset);
    move_device(&mut guest);
}

#[test]
fn there_is_no_state_of_a_device_that_runs() {
    let (guest, _host) = Guest::connected();
    assert_eq!(guest.device.save(), Err(SaveError::NotIdle));
}

#[test]
fn a_state_that_cannot_be_is_refused_by_the_name_of_its_field() {
    let (mut guest, _host) = Guest::connected();
    guest.device.stop();
    let good = serde_json::to_value(guest.device.save().unwrap()).unwrap();
    let table: [(&str, Value, &str); 5] = [
        ("/Vsock/guest_port", Value::Null, "device.guest_port: "),
        ("/Vsock/connection/state", json!("Idle"), "device.guest_port: "),
        ("/Vsock/connection/credit/received", json!(1), "device.connection.credit.forwarded: "),
        ("/Vsock/connection/due", json!(8), "device.connection.due: "),
        ("/Vsock/connection/due", json!(16), "device.connection.due: "),
    ];
    for (place, value, expected) in table {
        let mut state = good.clone();
        *state.pointer_mut(place).unwrap() = value;
        let state: DeviceState = serde_json::from_value(state).unwrap();
        let (mut device, _host) = fresh();
        let refused = device.restore(&state).unwrap_err().to_string();
        assert!(refused.starts_with(expected), "{place}: {refused}");
        assert_eq!(device.save().unwrap(), fresh().0.save().unwrap(), "{place}");
    }
    let state = serde_json::from_value(good).unwrap();
    assert!(matches!(guest.device.restore(&state), Err(RestoreError::NotFresh)));
}
