// SPDX-License-Identifier: Apache-2.0
use super::*;
use isopod_protocol::message::{Ack, Exited, Frozen, Hello, Thawed};
use isopod_protocol::window::INITIAL;
use proptest::prelude::*;
use std::error::Error as _;

fn bytes(says: AgentSays) -> Vec<u8> {
    FromAgent::from(says).encode_to_vec()
}

fn hello(version: u32) -> Vec<u8> {
    bytes(AgentSays::Hello(Hello {
        version,
        agent: "0.1".into(),
        kernel: "6.12\x1b[31m".into(),
        mailbox: 4096,
    }))
}

fn exited(code: Option<i32>, signal: Option<i32>) -> Vec<u8> {
    bytes(AgentSays::Exited(Exited { code, signal, out_of_memory: false }))
}

/// A conversation in `Up`.
fn up(terminal: bool) -> Conversation {
    let mut talk = Conversation::new(terminal);
    talk.hear(Frame::Message(&hello(VERSION))).unwrap();
    talk.start_sent();
    talk.hear(Frame::Message(&bytes(AgentSays::Started(Started::default())))).unwrap();
    talk
}

fn says(talk: &mut Conversation, message: &[u8]) -> Result<(), Misbehaviour> {
    talk.hear(Frame::Message(message)).map(|_| ())
}

#[test]
fn an_honest_agent_gets_to_the_end() {
    let mut talk = up(false);
    assert_eq!(talk.hear(Frame::Data(StreamId::STDOUT, b"x")).unwrap(), Heard::Output(Output::Stdout, b"x"));
    talk.hear(Frame::Eof(StreamId::STDOUT)).unwrap();
    talk.signal_sent();
    says(&mut talk, &bytes(AgentSays::Ack(Ack {}))).unwrap();
    let last = exited(Some(7), None);
    let end = talk.hear(Frame::Message(&last)).unwrap();
    assert_eq!(end, Heard::Exited(ProcessEnd { code: 7, out_of_memory: false }));
}

#[test]
fn another_version_is_refused() {
    assert_eq!(
        says(&mut Conversation::new(false), &hello(VERSION + 1)),
        Err(Misbehaviour::Version(VERSION + 1))
    );
}

#[test]
fn texts_of_the_guest_are_short_and_plain() {
    let long = bytes(AgentSays::Hello(Hello {
        version: VERSION,
        agent: "a".repeat(90_000),
        kernel: "6\x1b[31m".into(),
        mailbox: 0,
    }));
    let Heard::Hello(Greeting { agent, kernel, .. }) =
        Conversation::new(false).hear(Frame::Message(&long)).unwrap()
    else {
        panic!("a hello")
    };
    assert_eq!((agent.len(), kernel.as_str()), (MAX_TEXT, "6\u{fffd}[31m"));
}

#[test]
fn nothing_may_be_said_twice_or_too_early() {
    let started = bytes(AgentSays::Started(Started::default()));
    assert!(says(&mut up(false), &hello(VERSION)).is_err());
    assert!(says(&mut up(false), &started).is_err());
    assert!(says(&mut Conversation::new(false), &started).is_err());
    assert!(says(&mut Conversation::new(false), &exited(Some(0), None)).is_err());
    assert!(Conversation::new(false).hear(Frame::Data(StreamId::STDOUT, b"x")).is_err());
    let mut over = up(false);
    says(&mut over, &exited(Some(0), None)).unwrap();
    assert!(says(&mut over, &exited(Some(0), None)).is_err());
    assert!(over.hear(Frame::Data(StreamId::STDOUT, b"x")).is_err());
}

#[test]
fn an_answer_nobody_asked_for_is_refused() {
    assert_eq!(says(&mut up(false), &bytes(AgentSays::Ack(Ack {}))), Err(Misbehaviour::Answer));
}

#[test]
fn exit_codes_and_signals_out_of_range_are_refused() {
    for (code, signal) in [
        (None, None),
        (Some(256), None),
        (Some(-1), None),
        (None, Some(0)),
        (None, Some(65)),
        (None, Some(i32::MAX)),
        (Some(0), Some(9)),
    ] {
        let error = says(&mut up(false), &exited(code, signal));
        assert_eq!(error, Err(Misbehaviour::Exit { code, signal }));
    }
    let end = up(false)
        .hear(Frame::Message(&exited(None, Some(9))))
        .map(|h| matches!(h, Heard::Exited(e) if e.code == 137));
    assert_eq!(end, Ok(true));
}

#[test]
fn streams_that_are_not_the_agents_are_refused() {
    for stream in [0, 3, 4, u16::MAX] {
        assert!(up(false).hear(Frame::Data(StreamId(stream), b"x")).is_err(), "{stream}");
    }
    assert!(up(true).hear(Frame::Data(StreamId::STDERR, b"x")).is_err());
    assert!(up(false).hear(Frame::Window(StreamId::STDOUT, 1)).is_err());
    assert!(up(false).hear(Frame::Eof(StreamId(9))).is_err());
}

#[test]
fn data_after_a_streams_end_is_refused() {
    let mut talk = up(false);
    talk.hear(Frame::Eof(StreamId::STDOUT)).unwrap();
    assert!(talk.hear(Frame::Data(StreamId::STDOUT, b"x")).is_err());
    assert!(talk.hear(Frame::Eof(StreamId::STDOUT)).is_err());
}

#[test]
fn more_than_the_window_is_refused() {
    let mut talk = up(false);
    let piece = vec![0; 64 * 1024];
    for _ in 0..INITIAL as usize / piece.len() {
        talk.hear(Frame::Data(StreamId::STDOUT, &piece)).unwrap();
    }
    assert_eq!(
        talk.hear(Frame::Data(StreamId::STDOUT, b"x")).unwrap_err(),
        Misbehaviour::Window(WindowError)
    );
}

/// Who prints the chain says each of these once.
#[test]
fn no_error_says_what_its_cause_says() {
    let decode = FromAgent::decode([0xff].as_slice()).unwrap_err();
    for error in [FrameError::UnknownKind(9).into(), decode.into(), Misbehaviour::from(WindowError)] {
        let cause = error.source().map(ToString::to_string);
        assert!(cause.is_none_or(|cause| !error.to_string().contains(&cause)), "{error}");
    }
}

#[test]
fn room_for_what_was_never_sent_is_refused() {
    assert!(up(false).hear(Frame::Window(StreamId::STDIN, 1)).is_err());
}

proptest! {
    #[test]
    fn no_message_makes_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200), is_up in any::<bool>()) {
        let mut talk = if is_up { up(false) } else { Conversation::new(false) };
        let _ = talk.hear(Frame::Message(&noise));
    }

    #[test]
    fn what_is_held_of_an_output_never_exceeds_its_window(pieces in prop::collection::vec((1usize..70_000, any::<bool>()), 1..60)) {
        let mut talk = up(false);
        let data = vec![0; 70_000];
        let mut held = 0;
        for (n, consume) in pieces {
            if consume {
                talk.output_consumed(Output::Stdout, held);
                held = 0;
            }
            match talk.hear(Frame::Data(StreamId::STDOUT, &data[..n])) {
                Ok(_) => held += n,
                Err(_) => break,
            }
            prop_assert!(held <= INITIAL as usize);
        }
    }
}

fn frozen(failure: &str, input_kept: u32) -> Vec<u8> {
    bytes(AgentSays::Frozen(Frozen { failure: failure.into(), input_kept }))
}

#[test]
fn a_freeze_is_answered_once_and_nothing_is_said_until_the_thaw() {
    let mut talk = up(false);
    assert!(talk.hear(Frame::Message(&frozen("", 0))).is_err(), "nobody has asked");
    let mut talk_2 = up(false);
    talk_2.freeze_sent();
    // Output that was under way still comes.
    assert!(matches!(talk_2.hear(Frame::Data(StreamId::STDOUT, b"x")), Ok(Heard::Output(..))));
    assert_eq!(talk_2.hear(Frame::Message(&frozen("", 7))), Ok(Heard::Frozen));
    assert_eq!(talk_2.stillness(), Stillness::Still);
    assert!(talk_2.hear(Frame::Data(StreamId::STDOUT, b"x")).is_err());
    talk_2.thaw_sent();
    assert_eq!(talk_2.hear(Frame::Message(&bytes(AgentSays::Thawed(Thawed {})))), Ok(Heard::Thawed));
    assert_eq!(talk_2.stillness(), Stillness::Moving);
}

#[test]
fn who_cannot_freeze_says_why_and_goes_on() {
    let mut talk = up(false);
    talk.freeze_sent();
    assert_eq!(talk.hear(Frame::Message(&frozen("busy\x07", 0))), Ok(Heard::Frozen));
    assert_eq!(talk.stillness(), Stillness::Moving);
    assert_eq!(talk.take_freeze_failure().as_deref(), Some("busy\u{fffd}"));
}

#[test]
fn a_copy_is_met_with_what_was_left_unread() {
    let mut talk = up(false);
    talk.freeze_sent();
    talk.hear(Frame::Message(&frozen("", 1000))).unwrap();
    let copy = Conversation::thawing(&talk.talk());
    assert_eq!(copy.input_room(), up(false).input_room() - 1000);
    assert_eq!((copy.phase(), copy.stillness()), (Phase::Up, Stillness::Thawing));
}
