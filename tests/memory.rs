// SPDX-License-Identifier: Apache-2.0
//! A machine has all its memory, though its host learns of most of it only when it is used.

use crate::support::Host;

/// How much is free and how much of that the guest's allocator has, in MiB.
const FREE: &str = "awk '/MemTotal/ {t = $2} /MemFree/ {f = $2} /^nr_free_pages/ {a = $2 * 4} \
                    END {print int(t / 1024), int(f / 1024), int(a / 1024)}' /proc/meminfo /proc/vmstat";
/// More than what is open at first; touched by a program, and zeroed by the kernel, once.
const USE: &str = "dd if=/dev/zero of=/dev/null bs=110M count=1 2>/dev/null && echo used";

#[test]
fn a_machine_says_what_it_was_promised_and_gets_it_when_it_uses_it() {
    let run = Host::new().sh(&["-m", "256m"], &format!("{FREE}; {USE}; {FREE}")).expect(0);
    let lines: Vec<_> = run.text().lines().collect();
    let [before, "used", after] = lines[..] else { panic!("{lines:?}") };
    let numbers = |line: &str| line.split(' ').map(|n| n.parse().unwrap()).collect::<Vec<u32>>();
    let ([total, free, given], [_, still_free, now_given]) = (&numbers(before)[..], &numbers(after)[..])
    else {
        panic!("{lines:?}")
    };
    assert!((240..256).contains(total), "{lines:?}");
    assert!(*free > 224 && *given < 128, "most is free, and not in use: {lines:?}");
    assert!(*still_free > 224 && *now_given > 128, "more was opened: {lines:?}");
}
