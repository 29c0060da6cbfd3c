// SPDX-License-Identifier: Apache-2.0
//! What can go wrong before a guest runs: said clearly, soon, with exit code 125, and nothing left behind.

use crate::support::evil::{Deed, kernel};
use crate::support::{Host, finish};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Ends the test unless `stderr` says what failed, why, and has all of `words`.
#[track_caller]
fn told(stderr: &str, words: &[&str]) {
    assert!(stderr.starts_with("error: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not said: {stderr}");
    }
}

#[test]
fn a_missing_a_truncated_and_a_false_kernel_are_told_apart() {
    let host = Host::new();
    let run = |kernel: &str| {
        let began = Instant::now();
        let stderr = host.isopod(&["run", "--rm", "--kernel", kernel, "demo"]).expect(125).stderr;
        assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
        stderr
    };
    told(&run("/no/such/kernel"), &["/no/such/kernel", "cargo xtask kernel"]);

    let whole = fs::read(kernel(host.root(), Deed::Halt)).unwrap();
    let cut = host.scratch("cut");
    fs::write(&cut, &whole[..whole.len() - 1]).unwrap();
    told(&run(cut.to_str().unwrap()), &["cut off"]);

    let text = host.scratch("text");
    fs::write(&text, "no kernel at all\n".repeat(100)).unwrap();
    told(&run(text.to_str().unwrap()), &["ELF"]);
    told(&run(host.root().to_str().unwrap()), &[host.root().to_str().unwrap()]);
    host.assert_clean();
}

#[test]
fn impossible_memory_and_processors_are_refused_with_what_is_possible() {
    let host = Host::new();
    told(&host.isopod(&["run", "-m", "8m", "demo"]).expect(125).stderr, &["32"]);
    told(&host.isopod(&["run", "--cpus", "0", "demo"]).expect(125).stderr, &["1"]);
    told(&host.isopod(&["run", "--cpus", "1000", "demo"]).expect(125).stderr, &["16"]);
    host.assert_clean();
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let host = Host::new();
    let never = host.isopod(&["run", "--pull", "never", "no/such/image:1"]).expect(125);
    told(&never.stderr, &["no/such/image:1", "hint"]);
    // Nobody listens at port 1.
    let nowhere = host.isopod(&["run", "127.0.0.1:1/image"]).expect(125);
    told(&nowhere.stderr, &["127.0.0.1:1/image:latest", "cannot reach the registry 127.0.0.1:1", "hint"]);
    host.assert_clean();
}

#[test]
fn a_taken_name_is_a_conflict_until_it_is_removed() {
    let host = Host::new();
    let kernel = kernel(host.root(), Deed::PowerOff);
    let run = ["run", "--name", "web", "--no-template", "--kernel", kernel.to_str().unwrap(), "demo"];
    host.isopod(&run).expect(125);
    told(&host.isopod(&run).expect(125).stderr, &["web", "hint"]);
    host.isopod(&["rm", "web"]).expect(0);
    let again = host.isopod(&run).expect(125);
    assert!(again.stderr.contains("powered itself off"), "{}", again.stderr);
    host.isopod(&["rm", "web"]).expect(0);
    host.assert_clean();
}

/// The demo image is loaded first, so that what fails is KVM.
fn without_kvm(cover: &str) -> (Host, String) {
    let host = Host::new();
    let script = format!("{cover} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_isopod"), "run", "--rm", "demo"]);
    command
        .env("ISOPOD_DATA_ROOT", host.data_root())
        .env("ISOPOD_RUN_ROOT", host.scratch("run"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let stderr = finish(command.spawn().unwrap(), Vec::new()).expect(125).stderr;
    (host, stderr)
}

#[test]
fn no_kvm_is_told_with_the_cure() {
    // A folder of devices without it, as on a host whose kernel has no KVM.
    let (host, stderr) = without_kvm("mount -t tmpfs none /dev && mknod /dev/null c 1 3");
    told(&stderr, &["/dev/kvm", "hint"]);
    host.assert_clean();
}

#[test]
fn no_permission_on_kvm_is_told_with_the_cure() {
    let host = Host::new();
    let open = |path: &Path| {
        fs::create_dir_all(path).unwrap();
        let everybody = Permissions::from_mode(0o777);
        fs::set_permissions(path, everybody).unwrap();
    };
    open(host.root());
    open(&host.data_root());
    open(&host.scratch("run"));
    // The binary may lie where nobody else can reach it.
    let binary = host.scratch("isopod");
    fs::copy(env!("CARGO_BIN_EXE_isopod"), &binary).unwrap();
    let kernel = kernel(host.root(), Deed::Halt);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary);
    command.args(["run", "--rm", "--kernel"]).arg(&kernel).arg("demo");
    command
        .env("ISOPOD_DATA_ROOT", host.data_root())
        .env("ISOPOD_RUN_ROOT", host.scratch("run"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = finish(command.spawn().unwrap(), Vec::new()).expect(125);
    told(&run.stderr, &["/dev/kvm", "Permission denied", "hint"]);
    host.assert_clean();
}
