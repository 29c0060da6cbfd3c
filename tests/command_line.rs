// SPDX-License-Identifier: Apache-2.0
//! Help, versions, lists, completions: what needs no machine.

use crate::support::{Host, files};
use std::path::Path;
use std::process::Stdio;
use std::{fs, io};

#[test]
fn every_verb_has_help_and_the_program_a_version() {
    let host = Host::new();
    for verb in [
        "run", "load", "save", "images", "inspect", "history", "image", "manifest", "ps", "rm", "system",
        "doctor",
    ] {
        let help = host.isopod(&[verb, "--help"]).expect(0);
        assert!(help.text().contains("Usage: isopod"), "{verb}: {}", help.text());
    }
    assert!(host.isopod(&["--version"]).expect(0).text().starts_with("isopod "));
}

#[test]
fn completions_are_there_for_three_shells() {
    let host = Host::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(host.isopod(&["completion", shell]).expect(0).text().contains("isopod"), "{shell}");
    }
}

#[test]
fn the_doctor_finds_this_host_fit_and_says_what_kind_of_kvm_it_has() {
    let report = Host::new().isopod(&["doctor"]).expect(0);
    assert!(report.text().contains("kvm kind"), "{}", report.text());
    assert!(report.text().contains("guest kernel"), "{}", report.text());
}

#[test]
fn the_doctor_tells_what_the_host_leaves_open() {
    let report = Host::new().isopod(&["doctor"]).expect(0);
    let line = report.text().lines().find(|line| line.contains("host risks")).expect("a line of them");
    let said = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    for fault in files("/sys/devices/system/cpu/vulnerabilities".as_ref()) {
        let name = fault.file_name().unwrap().to_str().unwrap();
        assert_eq!(line.contains(name), said(&fault).contains("Vulnerable"), "{name}: {line}");
    }
    for (path, on, word) in [
        ("/sys/devices/system/cpu/smt/active", "1\n", "SMT is on"),
        ("/sys/kernel/mm/ksm/run", "1\n", "KSM is on"),
    ] {
        assert_eq!(line.contains(word), said(path.as_ref()) == on, "{path}: {line}");
    }
}

#[test]
fn help_offers_what_there_is() {
    let host = Host::new();
    let help = |words: &[&str]| host.isopod(&[words, &["--help"]].concat()).expect(0).text().to_owned();
    assert!(!help(&["image", "inspect"]).contains("Isolation"), "an image has none");
    let both = help(&["inspect"]);
    assert!(both.contains("{{.Isolation}}") && both.contains("ids of containers"), "{both}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let host = Host::new();
    let mut child =
        host.command(&["run", "--help"]).stdout(Stdio::piped()).spawn().expect("the binary starts");
    drop(child.stdout.take());
    let stderr = io::read_to_string(child.stderr.take().expect("piped")).expect("text");
    child.wait().expect("our child");
    assert!(!stderr.contains("panicked"), "{stderr}");
}
