// SPDX-License-Identifier: Apache-2.0
//! A container inside its machine is still a container, with Docker's defaults.

use crate::support::Host;

#[test]
fn the_defaults_hold() {
    let script = "
        grep CapEff /proc/self/status | cut -f2
        grep Seccomp: /proc/self/status | cut -f2
        mount -t tmpfs none /mnt 2>/dev/null || echo no-mount
        echo x 2>/dev/null > /proc/sysrq-trigger || echo no-sysrq
        echo x 2>/dev/null > /sys/power/state || echo no-sys
        ls /image /agent 2>/dev/null || echo no-outside
        test -w / && echo root-writable
        ls /dev | tr '\\n' ' '";
    let run = Host::new().sh(&[], script).expect(0);
    let lines: Vec<&str> = run.text().lines().collect();
    assert_eq!(&lines[..5], ["00000000a80425fb", "2", "no-mount", "no-sysrq", "no-sys"], "{}", run.text());
    assert!(lines.contains(&"no-outside") && lines.contains(&"root-writable"), "{}", run.text());
    assert_eq!(
        lines.last().map(|l| l.trim()),
        Some("fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"),
        "{}",
        run.text()
    );
}

#[test]
fn capabilities_and_the_root_change_as_asked() {
    let flags =
        ["--cap-drop", "ALL", "--cap-add", "CHOWN", "--security-opt", "no-new-privileges", "--read-only"];
    let script =
        "grep -e CapBnd -e NoNewPrivs /proc/self/status | cut -f2; touch /x 2>/dev/null || echo read-only";
    assert_eq!(Host::new().sh(&flags, script).expect(0).text(), "0000000000000001\n1\nread-only\n");
}
