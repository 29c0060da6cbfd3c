// SPDX-License-Identifier: Apache-2.0
//! A thread of somebody else's that makes system calls which it would never make: what one would do that was captured.

use super::{beneath, status};
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::io::{Write, read_to_string};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// No call that is made here waits for anything.
const SOON: Duration = Duration::from_secs(60);
/// Results that no program sees: the kernel makes the call again (include/linux/errno.h).
const AGAIN: [i64; 4] = [-512, -513, -514, -516];
/// So much below its stack pointer a thread may be using still (System V ABI), and more.
const BELOW: u64 = 4096;

/// Stopped, in a system call.
#[derive(Debug)]
pub(crate) struct Captive {
    thread: Pid,
    /// As it was stopped, but about to make its own call once more if that was not over.
    registers: user_regs_struct,
}

impl Captive {
    /// Stops it as often as it takes to find it in a system call: only there is the instruction that makes one right before
    /// the place where it goes on.
    pub(crate) fn of(thread: u32) -> Self {
        let thread = Pid::from_raw(i32::try_from(thread).expect("a pid"));
        ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD).expect("we are root");
        let within = Instant::now() + SOON;
        let mut registers = loop {
            interrupt(thread);
            let registers = ptrace::getregs(thread).expect("it has stopped");
            if registers.orig_rax != u64::MAX {
                break registers;
            }
            ptrace::cont(thread, None).expect("it has stopped");
            assert!(Instant::now() < within, "it makes no system call");
            sleep(Duration::from_millis(1));
        };
        if AGAIN.contains(&registers.rax.cast_signed()) {
            registers.rip -= 2;
            registers.rax = registers.orig_rax;
            // It is not to be made again a second time.
            registers.orig_rax = u64::MAX;
        }
        Self { thread, registers }
    }

    /// Of one that is about to make this call; the arguments that are not given are what its last one's were.
    fn calling(&self, number: i64, arguments: &[u64]) -> user_regs_struct {
        let mut registers = self.registers;
        // `of` has gone back to the instruction already if the call is to be made again.
        registers.rip -= if registers.orig_rax == u64::MAX { 0 } else { 2 };
        registers.rax = number.cast_unsigned();
        registers.orig_rax = u64::MAX;
        let user_regs_struct { rdi, rsi, rdx, r10, r8, r9, .. } = &mut registers;
        for (register, argument) in [rdi, rsi, rdx, r10, r8, r9].into_iter().zip(arguments) {
            *register = *argument;
        }
        registers
    }

    /// Has it make a call that is its process's end. Whatever else happens is none.
    pub(crate) fn ends_by(self, number: i64, arguments: &[u64]) {
        ptrace::setregs(self.thread, self.calling(number, arguments)).expect("it has stopped");
        ptrace::cont(self.thread, None).expect("it has stopped");
        // Its end is the tracer's to hear first.
        match wait(self.thread) {
            WaitStatus::Exited(..) | WaitStatus::Signaled(_, Signal::SIGSYS, _) => {}
            other => panic!("it lives on: {other:?}"),
        }
    }

    /// Has it make a call, and gives what that is answered.
    pub(crate) fn call(&self, number: i64, arguments: &[u64]) -> i64 {
        ptrace::setregs(self.thread, self.calling(number, arguments)).expect("it has stopped");
        // Once at its beginning, once at its end.
        for _ in 0..2 {
            let mut signal = None;
            loop {
                ptrace::syscall(self.thread, signal).expect("it has stopped");
                match wait(self.thread) {
                    WaitStatus::PtraceSyscall(_) => break,
                    WaitStatus::Stopped(_, theirs) => signal = Some(theirs),
                    WaitStatus::PtraceEvent(..) => signal = None,
                    other => panic!("it did not come back from its call: {other:?}"),
                }
            }
        }
        ptrace::getregs(self.thread).expect("it has stopped").rax.cast_signed()
    }

    /// Puts bytes where its memory is not used; gives their address.
    pub(crate) fn lay(&self, bytes: &[u8]) -> u64 {
        let at = self.registers.rsp - BELOW;
        let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", self.thread));
        memory.expect("we are root").write_all_at(bytes, at).expect("its stack is there");
        at
    }

    /// It goes on as if nothing had been.
    pub(crate) fn let_go(self) {
        ptrace::setregs(self.thread, self.registers).expect("it has stopped");
        ptrace::detach(self.thread, None).expect("it has stopped");
    }
}

/// Runs a command and has a thread of that name, of whichever of its processes, make a call as soon as it has closed its
/// filter behind itself: for threads that are there for a moment only. Gives the exit code, and what was said.
#[expect(clippy::zombie_processes, reason = "it is waited for by its number, like all that it starts")]
pub(crate) fn run_with_call(plain: &Command, name: &str, number: i64) -> (Option<i32>, String) {
    // It waits until it is watched.
    let mut run = beneath("sh", &["-c", "read go; exec \"$0\" \"$@\""], plain);
    let mut run = run.stdin(Stdio::piped()).spawn().expect("there is a shell");
    let main = Pid::from_raw(i32::try_from(run.id()).expect("a pid"));
    let all = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK;
    ptrace::seize(main, all | Options::PTRACE_O_TRACESYSGOOD).expect("we are root");
    ptrace::interrupt(main).expect("it is ours");
    run.stdin.take().expect("piped").write_all(b"\n").expect("it reads");
    let mut called = false;
    let code = loop {
        // Of this thread's children, and whom it watches.
        let (thread, signal) = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(WaitStatus::Exited(process, code)) if process == main => break Some(code),
            Ok(WaitStatus::Signaled(process, ..)) if process == main => break None,
            Ok(WaitStatus::PtraceSyscall(thread)) => (thread, None),
            Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
            Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
            Ok(_) => continue,
            Err(error) => panic!("it is gone: {error}"),
        };
        let number_of = thread.as_raw().unsigned_abs();
        // The first stop with a filter is the end of the call that closed it.
        if !called
            && signal.is_none()
            && status(number_of, "Name") == name
            && status(number_of, "Seccomp") == "2"
        {
            let registers = ptrace::getregs(thread).expect("it has stopped");
            let captive = Captive { thread, registers };
            ptrace::setregs(thread, captive.calling(number, &[])).expect("it has stopped");
            called = true;
        }
        // One that is killed meanwhile is heard of again.
        let _ = ptrace::syscall(thread, signal);
    };
    assert!(called, "there was no such thread");
    (code, read_to_string(run.stderr.take().expect("piped")).expect("text"))
}

/// Stops it; what it is sent meanwhile it gets.
fn interrupt(thread: Pid) {
    ptrace::interrupt(thread).expect("it is ours");
    loop {
        match wait(thread) {
            WaitStatus::PtraceEvent(..) => return,
            WaitStatus::Stopped(_, signal) => ptrace::cont(thread, signal).expect("it has stopped"),
            other => panic!("it does not stop: {other:?}"),
        }
    }
}

fn wait(thread: Pid) -> WaitStatus {
    let within = Instant::now() + SOON;
    loop {
        match waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)).expect("it is ours") {
            WaitStatus::StillAlive => assert!(Instant::now() < within, "nothing is heard of it"),
            status => return status,
        }
        sleep(Duration::from_millis(1));
    }
}
