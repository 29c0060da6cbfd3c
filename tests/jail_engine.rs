// SPDX-License-Identifier: Apache-2.0
//! What the engine gives up once its machine runs: looked at from outside, and tried from within.

use crate::support::captive::Captive;
use crate::support::{DEADLINE, Host, status, threads, wait};
use nix::libc;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::{fs, process};

/// CAP_KILL and CAP_DAC_OVERRIDE.
const KEPT: &str = "0000000000000022";
const NONE: &str = "0000000000000000";

const EPERM: i64 = -1;
const EACCES: i64 = -13;
const NO_FD: u64 = u64::MAX;

/// Calls that it has no use for, with arguments for which they would be answered otherwise, were they made: each with
/// whatever capabilities.
const DENIED: [(&str, i64, [u64; 6]); 17] = [
    ("execve of nothing: EFAULT", libc::SYS_execve, [0; 6]),
    ("execveat of nothing: EFAULT", libc::SYS_execveat, [NO_FD, 0, 0, 0, 0, 0]),
    ("clone3 without arguments: EINVAL", libc::SYS_clone3, [0; 6]),
    ("clone with flags that exclude each other: EINVAL", libc::SYS_clone, [0x0002_0200, 0, 0, 0, 0, 0]),
    ("socket: a descriptor", libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
    ("socketpair without a place: EFAULT", libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]),
    ("connect without a socket: EBADF", libc::SYS_connect, [NO_FD, 0, 0, 0, 0, 0]),
    ("ptrace of nobody: ESRCH", libc::SYS_ptrace, [16, NO_FD, 0, 0, 0, 0]),
    ("process_vm_readv with flags: EINVAL", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 1]),
    ("pidfd_getfd of nobody: EBADF", libc::SYS_pidfd_getfd, [NO_FD, 0, 0, 0, 0, 0]),
    ("mount of nothing: EFAULT", libc::SYS_mount, [0; 6]),
    ("chroot to nowhere: EFAULT", libc::SYS_chroot, [0; 6]),
    ("unshare of nothing: 0", libc::SYS_unshare, [0; 6]),
    ("setns without a namespace: EBADF", libc::SYS_setns, [NO_FD, 0, 0, 0, 0, 0]),
    ("setuid to who it is: 0", libc::SYS_setuid, [0; 6]),
    ("setgroups without a list: EFAULT or EINVAL", libc::SYS_setgroups, [1 << 20, 0, 0, 0, 0, 0]),
    ("keyctl of no kind: EOPNOTSUPP", libc::SYS_keyctl, [NO_FD, 0, 0, 0, 0, 0]),
];

/// A container that says what it is told.
struct Echo {
    run: Child,
    said: BufReader<ChildStdout>,
}

impl Echo {
    fn begin(host: &Host) -> Self {
        let args = ["run", "--rm", "-i", "--entrypoint", "", "demo", "cat"];
        let mut run = host.command(&args).stdin(Stdio::piped()).spawn().expect("the binary starts");
        let said = BufReader::new(run.stdout.take().expect("piped"));
        Self { run, said }
    }

    fn ask(&mut self, line: &str) {
        writeln!(self.run.stdin.as_mut().expect("piped"), "{line}").expect("it listens");
        let mut said = String::new();
        self.said.read_line(&mut said).expect("it speaks");
        assert_eq!(said.trim_end(), line);
    }
}

#[test]
fn an_engine_whose_machine_runs_keeps_what_supervision_takes_and_no_more() {
    let host = Host::new();
    let mut echo = Echo::begin(&host);
    echo.ask("one");
    let engine = echo.run.id();
    for (name, thread) in threads(engine) {
        for (set, has) in
            [("CapEff", KEPT), ("CapPrm", KEPT), ("CapBnd", KEPT), ("CapInh", NONE), ("CapAmb", NONE)]
        {
            assert_eq!(status(thread, set), has, "{set} of {name}");
        }
        assert_eq!((status(thread, "NoNewPrivs"), status(thread, "Seccomp")), ("1".into(), "2".into()));
    }

    let captive = Captive::of(engine);
    assert_eq!(captive.call(libc::SYS_getpid, &[]), i64::from(engine), "a call that is not denied");
    for (what, number, arguments) in DENIED {
        assert_eq!(captive.call(number, &arguments), EPERM, "{what}");
    }
    let outside = host.scratch("outside");
    assert_eq!(make_file(&captive, &outside), EACCES, "Landlock");
    assert!(!outside.exists());
    let kept = host.file("kept", b"");
    assert_eq!(captive.call(libc::SYS_unlink, &[captive.lay(&path(&kept))]), EACCES);
    // What it does have to do, so that the answers above are not due to the way it was asked.
    let inside = host.data_root().join("containers").join(format!("of-a-test-{}", process::id()));
    let made = make_file(&captive, &inside);
    assert!(made >= 0, "{made}");
    assert_eq!(captive.call(libc::SYS_close, &[made.cast_unsigned()]), 0);
    fs::remove_file(inside).unwrap();
    captive.let_go();

    echo.ask("two");
    drop(echo.run.stdin.take());
    assert_eq!(wait(&mut echo.run, DEADLINE), Some(Some(0)));
    host.assert_clean();
}

fn path(path: &Path) -> Vec<u8> {
    [path.as_os_str().as_bytes(), &[0]].concat()
}

fn make_file(captive: &Captive, at: &Path) -> i64 {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    let here = libc::AT_FDCWD;
    let name = captive.lay(&path(at));
    let arguments = [i64::from(here).cast_unsigned(), name, i64::from(flags).cast_unsigned(), 0o600];
    captive.call(libc::SYS_openat, &arguments)
}
