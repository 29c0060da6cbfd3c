// SPDX-License-Identifier: Apache-2.0
//! Exit codes are Docker's.

use crate::support::Host;

#[test]
fn a_container_exits_with_its_processs_code_and_leaves_nothing() {
    let host = Host::new();
    host.sh(&[], "exit 7").expect(7);
    host.assert_clean();
}

#[test]
fn a_signal_is_128_and_its_number() {
    // Pid 1 of a namespace is spared the signals it sends itself; under --init the process is not pid 1.
    Host::new().sh(&["--init"], "kill -TERM $$").expect(143);
}

#[test]
fn what_is_not_there_is_127_and_what_cannot_be_executed_126() {
    let host = Host::new();
    let run = |program: &str| host.run(&["--entrypoint", "", "demo", program], Vec::new());
    let missing = run("no-such-program").expect(127);
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    let forbidden = run("/etc/passwd").expect(126);
    assert!(forbidden.stderr.contains("/etc/passwd"), "{}", forbidden.stderr);
    host.assert_clean();
}

#[test]
fn our_own_failures_are_125_with_cause_and_next_step() {
    let host = Host::new();
    for args in [
        &["run", "--pull", "never", "no/such/image"][..],
        &["run", "-m", "8m", "demo"],
        &["run", "--cpus", "0", "demo"],
        &["run", "--cpus", "1000", "demo"],
        &["run", "--kernel", "/no/such/kernel", "demo"],
        &["run", "--no-such-flag", "demo"],
        &["run", "--name", "../up", "demo"],
    ] {
        let run = host.isopod(args).expect(125);
        assert!(run.stderr.contains("error"), "{args:?}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{args:?}");
    }
    host.assert_clean();
}
