// SPDX-License-Identifier: Apache-2.0
//! However a guest ends, it is told apart, and nothing is left.

use crate::support::evil::{Deed, kernel};
use crate::support::{Host, finish};
use rustix::process::{Pid, Signal, kill_process};
use std::thread;
use std::time::{Duration, Instant};

/// Runs a kernel that does `deed` and gives what is said about its end.
fn end_of(deed: Deed) -> String {
    let host = Host::new();
    let kernel = kernel(host.root(), deed);
    let run = host.isopod(&["run", "--rm", "--kernel", kernel.to_str().unwrap(), "demo"]).expect(125);
    host.assert_clean();
    run.stderr
}

#[test]
fn each_end_of_a_kernel_has_its_reason() {
    for (deed, reason) in [
        (Deed::TripleFault, "triple-faulted"),
        (Deed::PowerOff, "powered itself off"),
        (Deed::Panic, "kernel panicked"),
        (Deed::Reset, "reset itself"),
    ] {
        let said = end_of(deed);
        assert!(said.contains(reason), "{deed:?}: {said}");
    }
}

#[test]
fn what_kvm_cannot_emulate_ends_with_address_and_bytes() {
    let emulates = Host::new().isopod(&["doctor"]).expect(0).text().contains("emulating");
    let said = end_of(Deed::Unknown);
    if emulates {
        assert!(said.contains("0x1000000") && said.contains("c5 f8 77"), "{said}");
    } else {
        assert!(said.contains("triple-faulted"), "{said}");
    }
}

#[test]
fn a_guest_that_spins_with_interrupts_off_is_stopped_by_a_signal() {
    let host = Host::new();
    let kernel = kernel(host.root(), Deed::Spin);
    let child = host
        .command(&["run", "--rm", "--no-template", "--kernel", kernel.to_str().unwrap(), "demo"])
        .spawn()
        .unwrap();
    host.machine_pid();
    thread::sleep(Duration::from_millis(300));
    let asked = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    finish(child, Vec::new()).expect(143);
    assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?}", asked.elapsed());
    host.assert_clean();
}

#[test]
fn an_agent_that_never_answers_is_given_up_on() {
    let host = Host::new();
    let kernel = kernel(host.root(), Deed::Halt);
    let mut command = host.command(&["run", "--rm", "--kernel", kernel.to_str().unwrap(), "demo"]);
    let run = finish(command.env("ISOPOD_START_TIMEOUT", "2").spawn().unwrap(), Vec::new()).expect(125);
    assert!(run.stderr.contains("did not answer") && run.stderr.contains("2 s"), "{}", run.stderr);
    host.assert_clean();
}

#[test]
fn a_panic_of_the_real_kernel_and_its_power_off_end_a_running_container() {
    let host = Host::new();
    let all = [
        "--cap-add",
        "ALL",
        "--security-opt",
        "systempaths=unconfined",
        "--security-opt",
        "seccomp=unconfined",
    ];
    for (key, reason) in [("c", "kernel panicked"), ("o", "powered itself off")] {
        let run = host.sh(&all, &format!("echo {key} > /proc/sysrq-trigger; sleep 100")).expect(137);
        assert!(run.stderr.contains(reason), "{key}: {}", run.stderr);
    }
    host.assert_clean();
}
