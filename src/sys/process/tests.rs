// SPDX-License-Identifier: Apache-2.0

use super::standby::Turn;
use super::*;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, getpid, waitid};
use std::fs::read_to_string;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

// One at a time, as `assume` demands; the other tests' threads run on meanwhile, but hold no lock these children take.
static TURN: Mutex<()> = Mutex::new(());

fn with_one_thread<T>(test: impl FnOnce(&mut OneThread) -> T) -> T {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: `TURN` makes it one value, and the children below do not allocate while another thread may.
    test(&mut unsafe { OneThread::assume() })
}

fn wait(child: &Child) -> WaitIdStatus {
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap()
}

#[test]
fn a_child_in_shared_memory_leaves_its_result_there() {
    let mut seen = 0;
    let (child, result) = with_one_thread(|one| {
        one.spawn_shared(Namespaces::NONE, || {
            seen = getpid().as_raw_nonzero().get();
            7
        })
    })
    .unwrap();
    assert_eq!((result, seen), (Some(7), child.pid.as_raw_nonzero().get()));
    assert_eq!(wait(&child).exit_status(), Some(0));
}

#[test]
fn a_child_that_executes_has_no_result() {
    let args = Strings::new(vec![c"sh".into(), c"-c".into(), c"exit $CODE".into()]);
    let env = Strings::new(vec![c"CODE=9".into()]);
    let spawn = |one: &mut OneThread| one.spawn_shared(Namespaces::NONE, || execute(c"/bin/sh", &args, &env));
    let (child, error) = with_one_thread(spawn).unwrap();
    assert!(error.is_none());
    assert_eq!(wait(&child).exit_status(), Some(9));
}

#[test]
fn a_program_that_is_not_there_is_an_error_in_the_parent() {
    let (args, env) = (Strings::new(vec![]), Strings::new(vec![]));
    let spawn =
        |one: &mut OneThread| one.spawn_shared(Namespaces::NONE, || execute(c"/nowhere", &args, &env));
    let (child, error) = with_one_thread(spawn).unwrap();
    assert_eq!(error.unwrap().kind(), io::ErrorKind::NotFound);
    wait(&child);
}

#[test]
fn a_copy_changes_its_own_memory_only() {
    let mut value = 1;
    let child = with_one_thread(|one| {
        one.fork(Namespaces::NONE, |_| {
            value = 5;
            value
        })
    })
    .unwrap();
    assert_eq!(wait(&child).exit_status(), Some(5));
    assert_eq!(value, 1);
}

#[test]
fn a_limit_is_the_processs_own() {
    let before = read_to_string("/proc/self/limits").unwrap();
    let (child, result) = with_one_thread(|one| {
        one.spawn_shared(Namespaces::NONE, || set_limit(libc::RLIMIT_CORE, 0, 0).and(set_limit(99, 0, 0)))
    })
    .unwrap();
    assert_eq!(result.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    wait(&child);
    assert_eq!(before, read_to_string("/proc/self/limits").unwrap());
}

#[test]
fn a_child_that_stands_by_goes_on_with_its_order() {
    let (child, result) = with_one_thread(|one| {
        let standby = one.stand_by(Namespaces::NONE, |turn: Turn<u32, u32>| {
            let begun = 40;
            begun + turn.wait()
        });
        standby.map(|standby| standby.ok().unwrap().go(2))
    })
    .unwrap();
    assert_eq!(result, Some(42));
    wait(&child);
}

#[test]
fn a_child_that_stands_by_gives_the_turn_back_when_it_executes() {
    let args = Strings::new(vec![c"sh".into(), c"-c".into(), c"exit $CODE".into()]);
    let env = [c"CODE=6", c"CODE=7"].map(|line| Strings::new(vec![line.into()]));
    let (child, result) = with_one_thread(|one| {
        let standby = one.stand_by(Namespaces::NONE, move |turn: Turn<usize, io::Error>| {
            execute(c"/bin/sh", &args, &env[turn.wait()])
        });
        standby.map(|standby| standby.ok().unwrap().go(1))
    })
    .unwrap();
    assert!(result.is_none());
    assert_eq!(wait(&child).exit_status(), Some(7));
}

#[test]
fn a_child_that_stands_by_can_be_dismissed_and_one_that_cannot_says_so() {
    with_one_thread(|one| {
        let standby = one.stand_by(Namespaces::NONE, |turn: Turn<(), ()>| turn.wait())?;
        standby.ok().unwrap().dismiss()?;
        let failed = one.stand_by(Namespaces::NONE, |_: Turn<(), u8>| 5)?;
        assert_eq!(failed.err(), Some(5));
        io::Result::Ok(())
    })
    .unwrap();
}
