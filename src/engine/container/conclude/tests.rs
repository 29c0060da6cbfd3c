// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::agent::{Misbehaviour, ProcessEnd};
use std::error::Error;
use std::time::Duration;

fn code(ending: Ending) -> u8 {
    conclude(ending).map_or_else(|e| exit_code(e.kind()), |exit| exit.code)
}

fn machine(end: End, phase: Phase) -> Ending {
    Ending::Machine { end, phase }
}

#[test]
fn a_process_that_exits_gives_its_own_code() {
    assert_eq!(code(Ending::Exited(ProcessEnd { code: 7, out_of_memory: false })), 7);
}

#[test]
fn what_could_not_be_started_has_dockers_codes() {
    for (kind, expected) in [
        (FailedKind::Setup, 125),
        (FailedKind::NotExecutable, 126),
        (FailedKind::NotFound, 127),
        (FailedKind::NoSuchUser, 125),
    ] {
        assert_eq!(code(Ending::NotStarted { kind, message: "x".into() }), expected, "{kind:?}");
    }
}

#[test]
fn a_guest_that_ends_under_its_process_has_killed_it() {
    for end in [End::Panicked, End::PoweredOff, End::Rebooted, End::TripleFault { rip: 1, symbol: None }] {
        let exit = conclude(machine(end.clone(), Phase::Up)).unwrap();
        assert_eq!((exit.code, exit.reason), (137, Some(end.to_string())));
    }
}

#[test]
fn a_guest_that_ends_before_its_process_has_not_started_it() {
    for phase in [Phase::Booting, Phase::Greeted, Phase::Asked] {
        assert_eq!(code(machine(End::Panicked, phase)), 125);
        assert_eq!(code(Ending::HungUp { phase }), 125);
    }
}

#[test]
fn what_is_not_the_guests_doing_is_our_failure() {
    let end = End::InternalError { suberror: 1, rip: 2, bytes: vec![0x0f], symbol: None };
    let error = conclude(machine(end, Phase::Up)).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("0f"));
    assert_eq!(code(Ending::Misbehaved(Misbehaviour::Answer)), 125);
}

#[test]
fn deadlines_are_told_with_what_was_waited_for() {
    let limit = Duration::from_secs(20);
    let hello = conclude(Ending::Silent { waiting: Waiting::Hello, limit }).unwrap_err();
    assert!(hello.advice().unwrap().contains(START_TIMEOUT));
    let signal = conclude(Ending::Silent { waiting: Waiting::Signal, limit }).unwrap();
    assert_eq!(signal.code, 137);
    assert!(signal.reason.unwrap().contains("20 s"));
}

#[test]
fn a_start_that_is_broken_off_has_the_signals_code() {
    assert_eq!((code(Ending::Interrupted(2)), code(Ending::Interrupted(15))), (130, 143));
}
