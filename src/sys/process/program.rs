// SPDX-License-Identifier: Apache-2.0
//! A program started beside this process, at the price of a few system calls, in namespaces of its own.
//!
//! `std::process::Command` looks at every signal's action before it executes (some 130 calls), since a handler of this
//! process's must not run in a child that shares its memory. Here all signals stay blocked instead, until the program
//! itself unblocks them: it is one of ours.

use super::{Child, Namespaces, Strings, child_of, execute};
use crate::signal::AllBlocked;
use libc::{c_int, c_uint, c_void};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, write};
use rustix::process::{getegid, geteuid};
use rustix::stdio::dup2_stdin;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

/// A dozen system calls and no allocation do not need more.
const STACK_LEN: usize = 16 * 1024;

#[repr(align(16))]
struct Stack([MaybeUninit<u8>; STACK_LEN]);

/// At which step a program was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What lies before and between the others.
    Prepare,
    /// A new process, in new namespaces.
    Clone,
    /// Who it is in its user namespace.
    Ids,
    Execute,
}

/// Why a program was not started.
#[derive(Debug)]
pub struct NotStarted {
    pub step: Step,
    pub source: io::Error,
}

fn at<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> NotStarted {
    move |source| NotStarted { step, source: source.into() }
}

/// What the child is to do, and what became of it.
struct Order<'a> {
    program: &'a CStr,
    args: &'a Strings,
    env: &'a Strings,
    stdin: BorrowedFd<'a>,
    /// Files of /proc/self that say who the child is in its user namespace, and what they are to say; none without one.
    maps: Vec<(&'static CStr, String)>,
    error: Option<NotStarted>,
}

/// Executes `program` in a new process, in the namespaces `own`: `stdin` is its standard input, and it has no other
/// descriptor. In a user namespace of its own it is called root, and is whom this process is outside of it. All signals are
/// blocked in it, until it unblocks those that it can take.
pub fn start(
    program: &CStr,
    (args, env): (&Strings, &Strings),
    stdin: BorrowedFd<'_>,
    own: Namespaces,
) -> Result<Child, NotStarted> {
    let mut stack = Box::new(Stack([MaybeUninit::uninit(); STACK_LEN]));
    let maps = if own.has(Namespaces::USER) { maps() } else { Vec::new() };
    let mut order = Order { program, args, env, stdin, maps, error: None };
    let mut pidfd: c_int = -1;
    let flags = own.0 | libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let blocked = AllBlocked::new().map_err(at(Step::Prepare))?;
    let top = stack.0.as_mut_ptr().wrapping_add(STACK_LEN);
    // SAFETY: the stack is this call's own, aligned and, for what `enter` does, large enough; it and the order outlive
    // the child's use of them, since CLONE_VFORK holds this thread until the child has executed a program or has
    // ended. What the child shares with other threads it does not touch: it makes system calls. No handler runs in it,
    // for all signals are blocked.
    let pid = unsafe {
        libc::clone(enter, top.cast::<c_void>(), flags, (&raw mut order).cast::<c_void>(), &raw mut pidfd)
    };
    // SAFETY: as the system call's result says, the kernel has put a new descriptor here.
    let child = unsafe { child_of(pid, pidfd) };
    drop(blocked);
    let child = child.map_err(at(Step::Clone))?;
    match order.error {
        None => Ok(child),
        Some(error) => {
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Root within, this process's user and group without. The first line is what lets somebody without privileges write the
/// last (user_namespaces(7)).
fn maps() -> Vec<(&'static CStr, String)> {
    vec![
        (c"/proc/self/setgroups", "deny".to_owned()),
        (c"/proc/self/uid_map", format!("0 {} 1", geteuid().as_raw())),
        (c"/proc/self/gid_map", format!("0 {} 1", getegid().as_raw())),
    ]
}

extern "C" fn enter(order: *mut c_void) -> c_int {
    // SAFETY: `start` gives a pointer to an `Order` and does not touch it meanwhile.
    let order = unsafe { &mut *order.cast::<Order<'_>>() };
    let execute = || at(Step::Execute)(execute(order.program, order.args, order.env));
    order.error = Some(prepare(order).map_or_else(|error| error, |()| execute()));
    1
}

/// The child's steps before it is another program: none allocates.
fn prepare(order: &Order<'_>) -> Result<(), NotStarted> {
    let preparing = at::<Errno>(Step::Prepare);
    dup2_stdin(order.stdin).map_err(&preparing)?;
    // SAFETY: numbers only; the descriptor table is this child's own copy.
    if unsafe { libc::close_range(1, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) } < 0 {
        return Err(preparing(Errno::NOSYS));
    }
    for (path, text) in &order.maps {
        let file = open(*path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(&preparing)?;
        write(&file, text.as_bytes()).map_err(at(Step::Ids))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::fs::read_to_string;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use tempfile::NamedTempFile;

    fn words(words: &[&str]) -> Strings {
        Strings::new(words.iter().map(|word| CString::new(*word).unwrap()).collect())
    }

    #[test]
    fn a_program_has_its_input_and_environment_alone() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let script = "test -e /proc/self/fd/1 || echo closed >&0; env >&0; exit 7";
        let child = start(
            c"/bin/sh",
            (&words(&["sh", "-c", script]), &words(&["OWN=1"])),
            theirs.as_fd(),
            Namespaces::NONE,
        )
        .unwrap();
        drop(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().exit_status(), Some(7));
        // What is left is the shell's own.
        assert!(
            said.starts_with("closed\n") && said.contains("OWN=1\n") && !said.contains("HOME="),
            "{said}"
        );
    }

    #[test]
    fn a_program_takes_no_signal_yet_and_this_thread_takes_those_it_took() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let copy = NamedTempFile::new().unwrap();
        let path = copy.path().to_str().unwrap();
        let mask = |path: &str| {
            let status = read_to_string(path).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let before = mask("/proc/thread-self/status");
        let child = start(
            c"/bin/cp",
            (&words(&["cp", "/proc/self/status", path]), &words(&[])),
            theirs.as_fd(),
            Namespaces::NONE,
        )
        .unwrap();
        assert_eq!(child.wait().unwrap().exit_status(), Some(0));
        let signals = [1, 2, 15].iter().fold(0, |set, signal| set | 1 << (signal - 1));
        assert_eq!(mask(path) & signals, signals);
        assert_eq!(mask("/proc/thread-self/status"), before);
    }

    #[test]
    fn a_program_in_namespaces_of_its_own_is_the_first_of_its_processes_and_root() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let script = "echo $$ $(id -u) >&0; cat /proc/self/uid_map >&0";
        let own = Namespaces::USER | Namespaces::PID;
        let child =
            start(c"/bin/sh", (&words(&["sh", "-c", script]), &words(&[])), theirs.as_fd(), own).unwrap();
        drop(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().exit_status(), Some(0));
        let said: Vec<&str> = said.split_ascii_whitespace().collect();
        assert_eq!(said, ["1", "0", "0", &geteuid().as_raw().to_string(), "1"]);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_and_leaves_no_child() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error =
            start(c"/nowhere", (&words(&["x"]), &words(&[])), ours.as_fd(), Namespaces::NONE).unwrap_err();
        assert_eq!((error.step, error.source.kind()), (Step::Execute, io::ErrorKind::NotFound));
    }
}
