// SPDX-License-Identifier: Apache-2.0
//! What a container may not see and not call, and what its flags change of that.

use crate::support::Host;

/// Prints what each file of these holds, if it is there at all.
const COUNT: &str = "for f in $FILES; do test -e $f && echo $f $(cat $f | wc -c); done; true";

#[test]
fn the_kernels_files_are_masked_and_read_only_unless_asked_otherwise() {
    let host = Host::new();
    let files = "FILES=/proc/interrupts /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug";
    let script = format!(
        "{COUNT}; ls -A /sys/firmware 2>/dev/null
         for f in /proc/sys/kernel/domainname /proc/sys/vm/drop_caches /proc/irq/default_smp_affinity; do
            test -e $f && (echo 1 > $f) 2>/dev/null && echo wrote $f; done
         for d in /sys /sys/fs/cgroup /proc/sys; do mkdir $d/x 2>/dev/null && echo made $d/x; done
         grep -c ' /proc proc rw,nosuid,nodev,noexec' /proc/mounts"
    );
    let run = host.sh(&["-e", files], &script).expect(0);
    let (masked, last) = run.text().trim_end().rsplit_once('\n').expect("some file is there");
    assert_eq!(last, "1", "{}", run.text());
    assert!(masked.contains("/proc/interrupts"), "{masked}");
    assert!(masked.lines().all(|line| line.ends_with(" 0")), "something can be read or written:\n{masked}");

    let open = host.sh(&["-e", files, "--security-opt", "systempaths=unconfined"], COUNT).expect(0);
    assert!(!open.text().contains("/proc/interrupts 0"), "{}", open.text());
}

/// `swapon` is not in the default profile, whatever the capabilities; `mkdir` is refused by a profile of the test's own.
#[test]
fn the_filter_of_system_calls_holds_against_all_capabilities_and_can_be_replaced() {
    let host = Host::new();
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    let profile = format!("seccomp={}", host.file("profile.json", profile.as_bytes()).display());
    let script = "head -c 8192 /dev/zero > /swap; swapon /swap 2>&1; mkdir /made 2>&1; \
                  cat /proc/1/comm; (sleep 0.1 &); sleep 2; grep -l 'State:.Z' /proc/[0-9]*/status; echo end";
    let run = host.sh(&["--cap-add", "ALL", "--init"], script).expect(0);
    let lines: Vec<_> = run.text().lines().collect();
    assert!(lines[0].contains("swapon") && lines[0].contains("Operation not permitted"), "{}", run.text());
    // Its init is not the script, and it leaves no zombies.
    assert_ne!(lines[1], "sh", "{}", run.text());
    assert_eq!(lines[2..], ["end"], "{}", run.text());

    let run = host.sh(&["--cap-add", "ALL", "--security-opt", &profile], script).expect(0);
    let lines: Vec<_> = run.text().lines().collect();
    assert!(lines[0].contains("swapon") && !lines[0].contains("not permitted"), "{}", run.text());
    assert!(lines[1].contains("No space left on device"), "{}", run.text());
    assert_eq!(lines[2], "sh", "without --init the process is the first: {}", run.text());
    host.assert_clean();
}
