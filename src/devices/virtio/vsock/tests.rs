// SPDX-License-Identifier: Apache-2.0
pub(super) mod guest;

use super::bridge::{Bridge, Input};
use super::credit::BUF_ALLOC;
use super::packet::{HEADER_LEN, Header, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use super::*;
use crate::virtio::conformance;
use guest::{CID, GUEST_PORT, Guest, NEXT, PORT, WRITE};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;
use virtio_queue::QueueT;
use vm_memory::VolatileSlice;

fn device() -> Vsock {
    let (_host, agent) = UnixStream::pair().unwrap();
    Vsock::new(CID, PORT, agent).unwrap()
}

conformance::suite!(|| Box::new(device()), serves: [TX]);

/// Bytes that differ from their neighbours a page or a packet on.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n * 31 + n / 251) % 256).unwrap()).collect()
}

#[test]
fn the_guests_address_is_in_the_configuration_and_nothing_behind_it() {
    let (guest, _host) = Guest::new();
    let mut data = [0; 8];
    guest.device.read_config(0, &mut data);
    assert_eq!(data, CID.to_le_bytes());
    let mut data = [0; 4];
    guest.device.read_config(6, &mut data);
    assert_eq!(data, [0; 4]);
    guest.device.read_config(u64::MAX, &mut data);
    assert_eq!(data, [0; 4]);
}

#[test]
fn data_goes_both_ways() {
    let (mut guest, mut host) = Guest::connected();
    guest.send(Op::Data, b"hello from the guest");
    let mut got = [0; 20];
    host.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello from the guest");
    host.write_all(b"hello from the host").unwrap();
    assert_eq!(guest.expect_data(19), b"hello from the host");
}

#[test]
fn a_packet_in_one_descriptor_or_in_many_is_the_same_packet() {
    let (mut guest, mut host) = Guest::connected();
    let header = Header { len: 6, ..guest.header(Op::Data) }.encode();
    guest.send_raw(&[&[&header[..], b"abcdef"].concat()]);
    guest.send_raw(&[&header[..10], &header[10..], b"ab", b"c", b"def"]);
    guest.send_raw(&[&[&header[..], b"abc"].concat(), b"def and more than the header says"]);
    let mut got = [0; 18];
    host.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"abcdefabcdefabcdef");
}

#[test]
fn a_long_stream_from_the_guest_arrives_unchanged_through_a_slow_reader() {
    let (mut guest, mut host) = Guest::connected();
    let sent = pattern(4 << 20);
    let expected = sent.clone();
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        let mut piece = vec![0; 100_000];
        while got.len() < expected.len() {
            let n = host.read(&mut piece).unwrap();
            got.extend_from_slice(&piece[..n]);
            thread::sleep(Duration::from_micros(300));
        }
        assert!(got == expected);
    });
    let mut rest = &sent[..];
    while !rest.is_empty() {
        let n = rest.len().min(60_000).min(guest.credit() as usize);
        if n == 0 {
            guest.expect(Op::CreditUpdate);
            continue;
        }
        guest.send(Op::Data, &rest[..n]);
        rest = &rest[n..];
    }
    reader.join().unwrap();
}

#[test]
fn a_long_stream_from_the_host_arrives_unchanged_and_fills_the_buffers() {
    let (mut guest, mut host) = Guest::connected();
    let sent = pattern(4 << 20);
    let bytes = sent.clone();
    let writer = thread::spawn(move || {
        host.write_all(&bytes).unwrap();
        host
    });
    let (mut got, mut packets) = (Vec::new(), 0);
    while got.len() < sent.len() {
        got.extend(guest.expect(Op::Data).1);
        packets += 1;
        if packets % 16 == 0 {
            guest.send(Op::CreditUpdate, b"");
        }
    }
    writer.join().unwrap();
    assert!(got == sent);
    assert!(packets < 2 * sent.len() / (4096 - HEADER_LEN), "{packets} packets");
}

#[test]
fn the_guests_end_reaches_the_host_and_the_host_still_sends() {
    let (mut guest, mut host) = Guest::connected();
    guest.send(Op::Data, b"last words");
    guest.shut_down(SHUTDOWN_SEND);
    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"last words");
    host.write_all(b"heard").unwrap();
    assert_eq!(guest.expect_data(5), b"heard");
    drop(host);
    assert_eq!(guest.receive().0.op, Op::Reset);
}

#[test]
fn the_hosts_end_reaches_the_guest_and_the_guest_still_sends() {
    let (mut guest, mut host) = Guest::connected();
    host.write_all(b"last words").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.expect_data(10), b"last words");
    assert_eq!(guest.expect(Op::Shutdown).0.flags, SHUTDOWN_SEND);
    guest.send(Op::Data, b"heard");
    let mut got = [0; 5];
    host.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"heard");
    guest.shut_down(SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    guest.expect(Op::Reset);
    assert_eq!(host.read(&mut got).unwrap(), 0);
}

#[test]
fn a_guest_that_closes_is_answered_once_the_host_has_its_bytes() {
    let (mut guest, mut host) = Guest::connected();
    let sent = pattern(BUF_ALLOC as usize);
    for piece in sent.chunks(65_000) {
        guest.send(Op::Data, piece);
    }
    guest.shut_down(SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert!(got == sent);
    while guest.receive().0.op != Op::Reset {}
}

#[test]
fn a_guest_that_resets_takes_the_socket_down_without_an_answer() {
    let (mut guest, mut host) = Guest::connected();
    guest.send(Op::Reset, b"");
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(host.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    guest.expect_silence();
}

#[test]
fn a_host_that_is_gone_is_a_reset_for_the_guest() {
    let (mut guest, host) = Guest::connected();
    drop(host);
    guest.expect(Op::Shutdown);
    guest.send(Op::Data, b"anybody there?");
    guest.expect(Op::Reset);
}

#[test]
fn a_guest_out_of_credit_hears_when_the_host_reads_again() {
    let (mut guest, mut host) = Guest::connected();
    let mut sent = 0;
    // The socket itself takes some; what it takes is credit again.
    loop {
        while guest.try_receive(true).is_some() {}
        if guest.credit() == 0 {
            thread::sleep(Duration::from_millis(50));
            if guest.try_receive(true).is_none() {
                break;
            }
        }
        let n = guest.credit().min(50_000) as usize;
        guest.send(Op::Data, &vec![7; n]);
        sent += n;
    }
    let mut got = vec![0; sent];
    host.read_exact(&mut got).unwrap();
    guest.expect(Op::CreditUpdate);
    assert!(guest.credit() >= BUF_ALLOC / 2);
}

#[test]
fn a_guest_that_sends_past_its_credit_is_reset() {
    let (mut guest, _host) = Guest::connected();
    for _ in 0..40 {
        guest.send(Op::Data, &[7; 60_000]);
    }
    guest.wait(|guest| guest.try_receive(true).filter(|(header, _)| header.op == Op::Reset));
}

#[test]
fn a_host_never_sends_past_the_guests_credit() {
    let (mut guest, mut host) = Guest::connected();
    let small = Header { buf_alloc: 1000, ..guest.header(Op::CreditUpdate) };
    guest.send_header(&small, b"");
    guest.wait(|guest| (guest.packets_waiting() == 0).then_some(()));
    host.write_all(&pattern(5000)).unwrap();
    let mut got = guest.expect_data(1000);
    guest.expect_silence();
    guest.send_header(&Header { buf_alloc: 1000, fwd_cnt: 600, ..small }, b"");
    got.extend(guest.expect_data(600));
    guest.expect_silence();
    guest.send_header(&Header { buf_alloc: u32::MAX, fwd_cnt: 1600, ..small }, b"");
    got.extend(guest.expect_data(3400));
    assert_eq!(got, pattern(5000));
}

#[test]
fn a_credit_request_is_answered_with_what_is_free() {
    let (mut guest, _host) = Guest::connected();
    guest.send(Op::CreditRequest, b"");
    let (header, _) = guest.expect(Op::CreditUpdate);
    assert_eq!((header.buf_alloc, header.fwd_cnt), (BUF_ALLOC, 0));
}

#[test]
fn data_waits_for_a_guest_without_buffers_and_flows_when_it_posts_some() {
    let (mut guest, mut host) = Guest::new();
    guest.post(1, 4096);
    guest.send(Op::Request, b"");
    guest.wait(|guest| guest.try_receive(false));
    host.write_all(&pattern(10_000)).unwrap();
    guest.expect_silence();
    guest.post(8, 4096);
    assert_eq!(guest.expect_data(10_000), pattern(10_000));
}

#[test]
fn a_buffer_too_small_for_a_packet_is_given_back_empty() {
    let (mut guest, mut host) = Guest::connected();
    guest.wait(|guest| (guest.used_buffers() > 0).then_some(()));
    let (mut guest, mut small) = (guest, Vec::new());
    // The 64 good buffers are in front; use them up.
    for n in 0..64u8 {
        host.write_all(&[n]).unwrap();
        small.extend(guest.wait(|guest| guest.try_receive(false)).1);
    }
    assert_eq!(small, (0..64).collect::<Vec<u8>>());
    guest.post(3, 20);
    guest.post(2, u32::try_from(HEADER_LEN).unwrap());
    guest.post(1, 100);
    host.write_all(b"through").unwrap();
    assert_eq!(guest.expect_data(7), b"through");
}

type Spoil = fn(&mut Header);

/// What makes a packet of the connection somebody else's.
const NOT_OURS: &[(&str, Spoil)] = &[
    ("another port", |h| (h.dst_port, h.op) = (PORT + 1, Op::Request)),
    ("the hypervisor", |h| h.dst_cid = 0),
    ("the loopback", |h| h.dst_cid = 1),
    ("another guest", |h| h.dst_cid = 4),
    ("the upper half of an address", |h| h.dst_cid = 2 | 1 << 32),
    ("somebody else's address", |h| h.src_cid = 4),
    ("the host's address", |h| h.src_cid = 2),
    ("no type", |h| h.kind = 0),
    ("a packet socket", |h| h.kind = 2),
    ("an unknown type", |h| h.kind = u16::MAX),
    ("a reset from elsewhere", |h| (h.src_cid, h.op) = (9, Op::Reset)),
    ("a reset of another type", |h| (h.kind, h.op) = (7, Op::Reset)),
];

/// What may come from another port of the guest.
const FROM_ELSEWHERE: &[(&str, Spoil)] = &[
    ("a second connection", |h| h.op = Op::Request),
    ("a connection to another port", |h| (h.dst_port, h.op) = (22, Op::Request)),
    ("a response to nobody", |h| h.op = Op::Response),
    ("data for nobody", |h| h.op = Op::Data),
    ("a payload that is not there", |h| (h.len, h.op) = (500, Op::Data)),
    ("a shutdown of nothing", |h| h.op = Op::Shutdown),
    ("credit for nobody", |h| h.op = Op::CreditUpdate),
    ("an unknown operation", |h| h.op = Op::Unknown(99)),
    ("operation 0", |h| h.op = Op::Unknown(0)),
    ("a reset of nothing", |h| h.op = Op::Reset),
];

#[test]
fn a_stranger_is_refused_and_the_connection_does_not_notice() {
    let (mut guest, mut host) = Guest::connected();
    let ours = guest.header(Op::CreditUpdate);
    let other = Header { src_port: 4444, ..ours };
    let tables = [(ours, NOT_OURS), (other, FROM_ELSEWHERE)];
    for (good, (what, spoil)) in
        tables.iter().flat_map(|(good, table)| table.iter().map(move |row| (good, row)))
    {
        let mut header = *good;
        spoil(&mut header);
        guest.send_header(&header, b"");
        if header.op != Op::Reset {
            let (reset, _) = guest.receive();
            assert_eq!((reset.op, reset.kind), (Op::Reset, header.kind), "{what}");
            assert_eq!((reset.src_cid, reset.src_port), (header.dst_cid, header.dst_port), "{what}");
            assert_eq!((reset.dst_cid, reset.dst_port), (CID, header.src_port), "{what}");
        }
    }
    guest.expect_silence();
    host.write_all(b"unmoved").unwrap();
    assert_eq!(guest.expect_data(7), b"unmoved");
}

#[test]
fn what_breaks_the_connections_own_rules_ends_it() {
    let table: [(&str, Spoil); 5] = [
        ("a second request", |h| h.op = Op::Request),
        ("a response", |h| h.op = Op::Response),
        ("an unknown operation", |h| h.op = Op::Unknown(77)),
        ("a payload that is not there", |h| h.len = 1),
        ("a payload of 4 GiB", |h| h.len = u32::MAX),
    ];
    for (what, spoil) in table {
        let (mut guest, mut host) = Guest::connected();
        let mut bad = guest.header(Op::Data);
        spoil(&mut bad);
        guest.send_header(&bad, b"");
        let (reset, _) = guest.receive();
        assert_eq!((reset.op, reset.dst_port), (Op::Reset, GUEST_PORT), "{what}");
        assert_eq!(host.read(&mut [0; 1]).unwrap(), 0, "{what}");
        guest.send(Op::Request, b"");
        guest.expect(Op::Reset);
    }
}

#[test]
fn a_packet_too_short_for_a_header_is_dropped() {
    let (mut guest, mut host) = Guest::connected();
    let header = guest.header(Op::Request).encode();
    for len in [1, 10, HEADER_LEN - 1] {
        guest.send_raw(&[&header[..len]]);
    }
    guest.expect_silence();
    guest.send(Op::Data, b"x");
    host.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn a_broken_chain_asks_for_a_reset_and_the_device_stops_at_once() {
    let table = [
        ("outside memory", 1 << 40, 44, 0),
        ("across the end of memory", (64 << 20) - 43, 44, 0),
        ("the end of the address space", u64::MAX - 10, 44, 0),
        ("no bytes", 0x10_0000, 0, 0),
        ("4 GiB", 0x10_0000, u32::MAX, 0),
        ("a loop", 0x10_0000, 44, NEXT),
        ("a loop of buffers to write", 0x10_0000, 44, NEXT | WRITE),
        ("an indirect table", 0x10_0000, 64, 4),
    ];
    for (what, addr, len, flags) in table {
        let (mut guest, _host) = Guest::connected();
        guest.send_descriptor(addr, len, flags);
        let interrupt = guest.interrupt.clone();
        guest.wait(|_| interrupt.is_reset_needed().then_some(()));
        assert_eq!(guest.device.stop().len(), 3, "{what}");
    }
}

#[test]
fn a_flood_of_strangers_without_buffers_is_not_looked_at_past_a_bound() {
    let (mut guest, _host) = Guest::new();
    let stranger = guest.header(Op::Data);
    for _ in 0..63 + 64 {
        guest.send_header(&Header { dst_port: 1, ..stranger }, b"");
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(guest.packets_waiting(), 63);
    // Each is posted again when its answer is taken.
    guest.post(50, 64);
    for _ in 0..127 {
        guest.expect(Op::Reset);
    }
    assert_eq!(guest.packets_waiting(), 0);
}

#[test]
fn a_stop_keeps_the_connection_and_gives_back_every_buffer() {
    let (mut guest, mut host) = Guest::connected();
    // A read that fills the buffer to the last byte makes the device take one more, in vain.
    host.write_all(&pattern(4096 - HEADER_LEN)).unwrap();
    guest.expect_data(4096 - HEADER_LEN);
    guest.expect_silence();
    let queues = guest.device.stop();
    assert_eq!(queues.len(), 3);
    assert_eq!(queues[RX].queue.next_avail(), queues[RX].queue.next_used());
    host.write_all(b"while it was stopped").unwrap();
    guest.start(queues);
    assert_eq!(guest.expect_data(20), b"while it was stopped");
    guest.send(Op::Data, b"x");
    host.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn a_socket_nobody_can_use_is_not_waited_for() {
    let (host, agent) = UnixStream::pair().unwrap();
    let mut bridge = Bridge::new(agent).unwrap();
    assert_eq!(bridge.interest(true), Interest::default(), "nobody is connected");
    let (guest, _other) = Guest::new();
    bridge.hear(&guest.header(Op::Request), &[]);
    assert_eq!(bridge.word(), Some((Op::Response, 0)));
    let mut space = [0; 10];
    let mut read = || bridge.read_into(&mut [VolatileSlice::from(&mut space[..])]);
    assert_eq!(read(), Input::Nothing);
    drop(host);
    assert_eq!(bridge.interest(false), Interest::default(), "the guest has no buffers");
    assert_eq!(bridge.interest(true), Interest { read: true, write: false });
    bridge.ready(Interest { read: true, write: true });
    let mut space = [0; 10];
    assert_eq!(bridge.read_into(&mut [VolatileSlice::from(&mut space[..])]), Input::Ended);
    assert_eq!(bridge.interest(true), Interest::default(), "the host has closed");
}
