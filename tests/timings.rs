// SPDX-License-Identifier: Apache-2.0
//! `--timings` tells where the time went, in the order in which it went.

use crate::support::Host;
use serde_json::Value;

const STEPS: [&str; 13] = [
    "process start",
    "image resolved",
    "kernel, boot share, KVM opened",
    "record written",
    "descriptors handed over",
    "KVM objects, memory, devices",
    "first KVM_RUN",
    "kernel and agent (hello)",
    "mounts",
    "process started",
    "first byte",
    "process exited",
    "machine gone",
];

/// What a restored machine had done before it was saved.
const OF_A_BOOT: &str = "kernel and agent (hello)";

#[test]
fn each_step_from_exec_to_exit_is_told_and_the_steps_add_up() {
    let told = told(&["--timings=json", "--no-template"], &STEPS);
    let exits = |when: &str| told[when]["exits"].as_u64().unwrap();
    assert!(0 < exits("at_hello") && exits("at_hello") <= exits("at_exit"), "{told}");
}

#[test]
fn a_machine_that_starts_from_a_template_says_no_hello() {
    let steps: Vec<_> = STEPS.into_iter().filter(|step| *step != OF_A_BOOT).collect();
    let told = told(&["--timings=json"], &steps);
    assert!(told["at_hello"].is_null(), "{told}");
}

/// Of the machine's process, which comes to its jail beside the first of these steps.
const BESIDE: [&str; 2] = ["machine's process", "its jail closed"];

/// Runs something and gives what was told of it, which has these steps.
fn told(flags: &[&str], steps: &[&str]) -> Value {
    let run = Host::new().sh(flags, "echo out; exit 3").expect(3);
    assert_eq!(run.text(), "out\n", "the table is not the container's output");
    let told: Value = serde_json::from_str(&run.stderr).unwrap_or_else(|e| panic!("{e}: {}", run.stderr));
    let rows = told["timings"].as_array().unwrap();
    let what: Vec<_> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    let (beside, own): (Vec<&str>, Vec<&str>) = what.into_iter().partition(|what| BESIDE.contains(what));
    assert_eq!((own, beside), (steps.to_vec(), BESIDE.to_vec()));
    let mut sum = 0.0;
    for row in rows {
        sum += row["took_ms"].as_f64().unwrap();
        let at = row["at_ms"].as_f64().unwrap();
        assert!((at - sum).abs() < 0.1, "{row}: the steps before it took {sum} ms");
    }
    told
}

#[test]
fn a_run_that_fails_tells_how_far_it_got() {
    let run = Host::new().isopod(&["run", "--pull", "never", "--timings", "no/such/image"]).expect(125);
    assert!(run.stderr.contains("process start") && !run.stderr.contains("KVM_RUN"), "{}", run.stderr);
}
