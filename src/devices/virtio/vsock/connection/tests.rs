// SPDX-License-Identifier: Apache-2.0
use super::super::credit::BUF_ALLOC;
use super::super::packet::{HOST_CID, TYPE_STREAM};
use super::*;
use proptest::prelude::*;
use std::iter;

fn header(op: Op, len: u32, flags: u32) -> Header {
    Header {
        src_cid: 3,
        dst_cid: HOST_CID,
        src_port: 5000,
        dst_port: 1024,
        len,
        kind: TYPE_STREAM,
        op,
        flags,
        buf_alloc: 65536,
        fwd_cnt: 0,
    }
}

fn words(connection: &mut Connection) -> Vec<(Op, u32)> {
    iter::from_fn(|| connection.word()).collect()
}

fn connected() -> Connection {
    let mut connection = Connection::default();
    assert_eq!(connection.hear(&header(Op::Request, 0, 0)), Heard::Done);
    assert_eq!(words(&mut connection), [(Op::Response, 0)]);
    connection
}

fn shutdown(connection: &mut Connection, flags: u32) {
    assert_eq!(connection.hear(&header(Op::Shutdown, 0, flags)), Heard::Done);
}

#[test]
fn before_a_request_everything_is_refused() {
    for op in (0..9).map(Op::from).filter(|op| *op != Op::Request) {
        let mut connection = Connection::default();
        assert_eq!(connection.hear(&header(op, 0, 0)), Heard::Refused, "{op:?}");
        assert_eq!(connection.state(), State::Idle);
    }
}

#[test]
fn after_the_end_everything_is_refused() {
    let mut connection = connected();
    connection.hear(&header(Op::Reset, 0, 0));
    for op in (0..9).map(Op::from) {
        assert_eq!(connection.hear(&header(op, 0, 0)), Heard::Refused, "{op:?}");
        assert_eq!(words(&mut connection), []);
    }
}

#[test]
fn what_a_connection_does_not_know_ends_it_with_a_reset() {
    for op in [Op::Request, Op::Response, Op::Unknown(0), Op::Unknown(8), Op::Unknown(u16::MAX)] {
        let mut connection = connected();
        connection.hear(&header(op, 0, 0));
        assert_eq!(connection.state(), State::Closed, "{op:?}");
        assert_eq!(words(&mut connection), [(Op::Reset, 0)]);
    }
}

#[test]
fn a_reset_is_not_answered() {
    let mut connection = connected();
    connection.hear(&header(Op::CreditRequest, 0, 0));
    connection.hear(&header(Op::Reset, 0, 0));
    assert_eq!(words(&mut connection), []);
}

#[test]
fn each_way_ends_by_itself() {
    let mut connection = connected();
    shutdown(&mut connection, SHUTDOWN_SEND);
    connection.step(Event::Drained);
    assert_eq!(connection.state(), State::GuestDone);
    assert_eq!(connection.room(), 65536);

    let mut connection = connected();
    connection.step(Event::HostSent);
    assert_eq!(words(&mut connection), [(Op::Shutdown, SHUTDOWN_SEND)]);
    assert_eq!(connection.room(), 0);
    assert_eq!(connection.hear(&header(Op::Data, 100, 0)), Heard::Payload);
}

#[test]
fn a_guest_that_closed_gets_its_reset_once_its_bytes_are_delivered() {
    let mut connection = connected();
    connection.hear(&header(Op::Data, 100, 0));
    shutdown(&mut connection, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    assert_eq!(connection.state(), State::Draining);
    assert_eq!(words(&mut connection), []);
    connection.step(Event::Drained);
    assert_eq!(words(&mut connection), [(Op::Reset, 0)]);
}

#[test]
fn data_after_the_guests_own_end_is_a_reset() {
    let mut connection = connected();
    shutdown(&mut connection, SHUTDOWN_SEND);
    assert_eq!(connection.hear(&header(Op::Data, 1, 0)), Heard::Done);
    assert_eq!(words(&mut connection), [(Op::Reset, 0)]);
}

#[test]
fn shutdown_bits_stay_once_given() {
    let mut connection = connected();
    shutdown(&mut connection, SHUTDOWN_SEND);
    shutdown(&mut connection, 0);
    assert_eq!(connection.state(), State::GuestDone);
    shutdown(&mut connection, SHUTDOWN_RECEIVE);
    assert_eq!(connection.state(), State::Draining);
}

#[test]
fn more_data_than_credit_is_a_reset() {
    let mut connection = connected();
    assert_eq!(connection.hear(&header(Op::Data, BUF_ALLOC, 0)), Heard::Payload);
    assert_eq!(connection.hear(&header(Op::Data, 1, 0)), Heard::Done);
    assert_eq!(connection.state(), State::Closed);

    let mut connection = connected();
    assert_eq!(connection.hear(&header(Op::Data, u32::MAX, 0)), Heard::Done);
    assert_eq!(connection.state(), State::Closed);
}

#[test]
fn a_credit_request_is_answered() {
    let mut connection = connected();
    connection.hear(&header(Op::CreditRequest, 0, 0));
    assert_eq!(words(&mut connection), [(Op::CreditUpdate, 0)]);
}

/// What can happen to a connection: from the guest, from the host, and to what it holds.
#[derive(Debug, Clone)]
enum Step {
    Hear { op: u16, len: u32, flags: u32, buf_alloc: u32, fwd_cnt: u32 },
    Forward(u32),
    Send(u32),
    Speak,
    HostSent,
    HostGone,
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..100_000, 1 => any::<u32>(), 1 => Just(u32::MAX), 1 => Just(BUF_ALLOC), 1 => Just(0)]
}

fn any_step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![12 => Just(5u16), 3 => Just(6), 2 => Just(7), 2 => Just(1), 1 => 0u16..10];
    let flags = prop_oneof![6 => Just(0u32), 1 => 0u32..5];
    prop_oneof![
        6 => (op, number(), flags, number(), number())
            .prop_map(|(op, len, flags, buf_alloc, fwd_cnt)| Step::Hear { op, len, flags, buf_alloc, fwd_cnt }),
        4 => number().prop_map(Step::Forward),
        4 => number().prop_map(Step::Send),
        4 => Just(Step::Speak),
        1 => Just(Step::HostSent),
        1 => Just(Step::HostGone),
    ]
}

/// What the guest was promised and what it said, kept apart from the connection's own books.
#[derive(Debug, Default)]
struct Ledger {
    sent: u32,
    buf_alloc: u32,
    fwd_cnt: u32,
    said: Vec<Op>,
}

impl Ledger {
    fn walk(&mut self, connection: &mut Connection, step: Step) {
        match step {
            Step::Hear { op, len, flags, buf_alloc, fwd_cnt } => {
                let heard = connection.hear(&Header { buf_alloc, fwd_cnt, ..header(op.into(), len, flags) });
                if heard != Heard::Refused {
                    (self.buf_alloc, self.fwd_cnt) = (buf_alloc, fwd_cnt);
                }
            }
            Step::Forward(n) => self.forward(connection, n),
            Step::Send(n) => self.send(connection, n),
            Step::Speak => self.said.extend(connection.word().map(|(op, _)| op)),
            Step::HostSent => connection.step(Event::HostSent),
            Step::HostGone => connection.step(Event::Broken),
        }
    }

    fn forward(&mut self, connection: &mut Connection, n: u32) {
        connection.forwarded(n.min(connection.credit.held()));
        if connection.credit.held() == 0 {
            connection.step(Event::Drained);
        }
    }

    fn send(&mut self, connection: &mut Connection, n: u32) {
        let n = n.min(connection.room());
        if n == 0 {
            return;
        }
        connection.sent(n);
        self.sent = self.sent.wrapping_add(n);
        let in_flight = self.sent.wrapping_sub(self.fwd_cnt);
        assert!(in_flight <= self.buf_alloc, "sent past the guest's credit");
        assert!(!self.said.contains(&Op::Reset), "data after a reset");
    }
}

fn any_connection() -> impl Strategy<Value = Connection> {
    use State::{Closed, Connected, Draining, GuestDone, HostDone, Idle};
    let state = prop::sample::select(vec![Idle, Connected, GuestDone, HostDone, Draining, Closed]);
    let due = prop_oneof![Just(0u8), 0u8..16, any::<u8>()];
    // Nothing is held in most.
    let credit = (number(), number(), any::<bool>(), [number(), number(), number(), number()]).prop_map(
        |(received, forwarded, is_held, [told, sent, peer_alloc, peer_forwarded])| {
            let forwarded = if is_held { forwarded } else { received };
            Credit { received, forwarded, told, sent, peer_alloc, peer_forwarded }
        },
    );
    (state, credit, due).prop_map(|(state, credit, due)| Connection { state, credit, due: Due(due) })
}

proptest! {
    #[test]
    fn no_steps_break_the_books_of_one_that_goes_on(
        mut connection in any_connection().prop_filter("it can be", |connection| connection.check().is_ok()),
        steps in prop::collection::vec(any_step(), 1..100),
    ) {
        let Credit { sent, peer_alloc, peer_forwarded, .. } = connection.credit;
        let mut ledger = Ledger { sent, buf_alloc: peer_alloc, fwd_cnt: peer_forwarded, said: Vec::new() };
        for step in steps {
            ledger.walk(&mut connection, step);
            prop_assert!(connection.state() == State::Closed || connection.credit.held() <= BUF_ALLOC);
        }
        ledger.said.extend(words(&mut connection).into_iter().map(|(op, _)| op));
        prop_assert!(ledger.said.iter().filter(|op| **op == Op::Reset).count() <= 1);
        prop_assert!(!connection.has_word());
    }

    #[test]
    fn no_steps_break_the_books(steps in prop::collection::vec(any_step(), 1..200)) {
        let (mut connection, mut ledger) = (connected(), Ledger::default());
        (ledger.buf_alloc, ledger.fwd_cnt) = (65536, 0);
        let mut closed = false;
        for step in steps {
            ledger.walk(&mut connection, step);
            prop_assert!(connection.credit.held() <= BUF_ALLOC);
            prop_assert!(!closed || connection.state() == State::Closed, "a closed connection opened again");
            closed = connection.state() == State::Closed;
            prop_assert!(!closed || connection.room() == 0);
        }
        ledger.said.extend(words(&mut connection).into_iter().map(|(op, _)| op));
        let resets = ledger.said.iter().filter(|op| **op == Op::Reset).count();
        prop_assert!(resets <= 1);
        prop_assert!(resets == 0 || ledger.said.last() == Some(&Op::Reset));
        prop_assert!(!ledger.said.contains(&Op::Response), "answered twice");
    }
}
