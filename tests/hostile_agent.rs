// SPDX-License-Identifier: Apache-2.0
//! The guest of `tests/attacker` takes the agent's place and says to the engine what no agent would: each run ends by its
//! deadline with an error that says why, in no more memory than a usual one, and nothing of it is left.

use crate::support::attacker::{Attack, Orders, Part, command};
use crate::support::{Host, Run, finish, peak_of, tell, times};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// More than a usual run has resident, in KiB.
const MORE: u64 = 8 << 10;
/// An agent that hung up, or whose machine is to tell why it ended, is waited for that long (`LAST_WORDS`); and as much for
/// all else.
const SOON: Duration = Duration::from_secs(6);

/// A run with such an agent, and the most memory its engine had resident.
fn play(host: &Host, orders: &Orders) -> (Run, u64) {
    watch(&mut command(host, orders, &[]).0)
}

fn watch(command: &mut Command) -> (Run, u64) {
    let child = command.spawn().unwrap();
    let peak = peak_of(child.id());
    (finish(child, vec![b'i'; 1 << 20]), peak.join().unwrap())
}

/// The most memory that a usual run's engine has resident.
fn usual() -> u64 {
    let host = Host::new();
    let (run, peak) = watch(&mut host.command(&["run", "--rm", "demo", "true"]));
    run.expect(0);
    peak
}

/// Ends with `code` and these words within `SOON`, in memory that is not much more than `usual`.
#[track_caller]
fn ends(orders: Orders, (code, words): (i32, &str), usual: u64) -> Duration {
    let host = Host::new();
    // The first to want a kernel builds it, for which nobody is to blame.
    let mut command = command(&host, &orders, &[]).0;
    let began = Instant::now();
    let (run, peak) = watch(&mut command);
    let took = began.elapsed();
    assert_eq!(run.code, Some(code), "{orders:?}: {}", run.stderr);
    assert!(run.stderr.contains(words), "{orders:?}: {}", run.stderr);
    for bad in ["panic", "SIGSYS"] {
        assert!(!run.stderr.contains(bad), "{orders:?}: {}", run.stderr);
    }
    assert!(took < SOON, "{orders:?}: {took:?}");
    assert!(peak <= usual + MORE, "{orders:?}: {peak} KiB, and {usual} in a usual run");
    host.assert_clean();
    took
}

#[test]
fn an_agent_that_does_as_it_should_is_heard() {
    let host = Host::new();
    let (run, _) = play(&host, &Orders::agent(Part::Honest));
    assert_eq!(run.expect(7).text(), "hello\n");
    host.assert_clean();
}

#[test]
fn every_word_that_is_out_of_place_ends_the_machine() {
    let usual = usual();
    let broke = (125, "broke the protocol");
    let mut longest = Duration::ZERO;
    for (part, variants) in [(Part::WhileUp, 38), (Part::BeforeHello, 10), (Part::BeforeStart, 6)] {
        for variant in 0..variants {
            longest = longest.max(ends(Orders { seed: variant, ..Orders::agent(part) }, broke, usual));
        }
    }
    longest = longest.max(ends(Orders::agent(Part::Overruns), (125, "window"), usual));
    tell(&format!("55 words out of place, the longest run {longest:?}, a usual run's peak {usual} KiB"));
}

#[test]
fn an_agent_that_hangs_up_is_told_apart_by_when() {
    let usual = usual();
    ends(Orders::agent(Part::HangsUpEarly), (125, "hung up"), usual);
    ends(Orders::agent(Part::ShutsDown), (125, "hung up"), usual);
    ends(Orders::agent(Part::HangsUp), (137, "hung up"), usual);
    ends(Orders::agent(Part::BreaksOff), (137, "hung up"), usual);
}

#[test]
fn an_agent_that_falls_silent_before_the_process_runs_is_given_up_on() {
    for (part, words) in [
        (Part::Silent, "agent did not answer"),
        (Part::Greeted, "process was not started"),
        (Part::Deaf, "process was not started"),
    ] {
        let host = Host::new();
        let (mut command, _) = command(&host, &Orders::agent(part), &[]);
        let began = Instant::now();
        let run = watch(command.env("ISOPOD_START_TIMEOUT", "2")).0.expect(125);
        assert!(run.stderr.contains(words), "{part:?}: {}", run.stderr);
        assert!(began.elapsed() < SOON, "{part:?}: {:?}", began.elapsed());
        host.assert_clean();
    }
}

#[test]
fn a_text_of_a_mebibyte_is_told_short_and_plain() {
    let host = Host::new();
    let (run, peak) = play(&host, &Orders::agent(Part::LongText));
    let run = run.expect(125);
    // The agent's own words, as far as they can be shown, and not that they were out of place.
    assert!(run.stderr.contains("[2J\u{fffd}\u{fffd}\u{fffd}x\u{fffd}[2J"), "{:?}", run.stderr);
    assert!(!run.stderr.contains("broke the protocol"), "{:?}", run.stderr);
    let shown = |c: char| c == '\n' || !c.is_control();
    assert!(run.stderr.chars().all(shown) && run.stderr.len() < 8 << 10, "{:?}", run.stderr);
    assert!(peak <= usual() + MORE, "{peak} KiB");
    host.assert_clean();
}

#[test]
fn frames_at_random_end_the_machine_and_nothing_else() {
    let usual = usual();
    let (mut frames, mut most) = (0, 0);
    let runs = times(40);
    for seed in 0..runs {
        let host = Host::new();
        let (run, peak) = play(&host, &Orders { seed, ..Orders::agent(Part::Noise) });
        let run = run.expect(125);
        assert!(run.stderr.contains("broke the protocol"), "seed {seed}: {}", run.stderr);
        assert!(peak <= usual + MORE, "seed {seed}: {peak} KiB, and {usual} in a usual run");
        let said = fs::read_to_string(host.scratch("console")).unwrap();
        let last = said.lines().rev().find_map(|line| line.strip_prefix("frames ")?.parse::<u64>().ok());
        frames += last.unwrap_or(0);
        most = most.max(peak);
        host.assert_clean();
    }
    tell(&format!("{frames} frames in {runs} runs, peak {most} KiB, a usual run's {usual} KiB"));
}

#[test]
fn a_flood_of_output_is_passed_on_whole_and_not_kept() {
    let host = Host::new();
    let kib = 64 << 10;
    let (run, peak) = play(&host, &Orders { count: kib, ..Orders::agent(Part::Floods) });
    let run = run.expect(0);
    assert!(run.stdout.len() == usize::try_from(kib << 10).unwrap() && run.stdout.iter().all(|b| *b == b'x'));
    assert!(peak <= usual() + MORE, "{peak} KiB");
    host.assert_clean();
}

/// Even if the process heeds no signal and its agent answers none.
#[test]
fn who_insists_ends_a_run_whose_agent_never_pauses() {
    for part in [Part::Floods, Part::NothingForEver] {
        let host = Host::new();
        let (mut command, _) = command(&host, &Orders { count: 1 << 30, ..Orders::agent(part) }, &[]);
        let mut child = command.spawn().unwrap();
        let peak = peak_of(child.id());
        host.machine_pid();
        // Nobody reads what comes.
        thread::sleep(Duration::from_secs(3));
        let asked = Instant::now();
        for _ in 0..3 {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        // What was written is passed on before the end, as far as somebody reads it: here nobody ever will.
        drop(child.stdout.take());
        let run = child.wait_with_output().unwrap();
        let took = asked.elapsed();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(137), "{part:?}: {stderr}");
        assert!(took < Duration::from_secs(2), "{part:?}: {took:?}");
        let peak = peak.join().unwrap();
        assert!(peak <= usual() + MORE, "{part:?}: {peak} KiB");
        tell(&format!("{part:?}: ended within {took:?}, peak {peak} KiB"));
        host.assert_clean();
    }
}

#[test]
fn a_guest_that_takes_no_input_keeps_nobody_busy() {
    let host = Host::new();
    Attack::start_with_input(&host, Orders::agent(Part::DeafWhileUp)).judge().run.expect(137);
}

#[test]
fn a_guest_that_takes_input_late_gets_all_there_is_room_for() {
    let host = Host::new();
    let (mut command, _) = command(&host, &Orders::agent(Part::Recovers), &["-i"]);
    watch(command.stdin(Stdio::piped())).0.expect(9);
    host.assert_clean();
}
