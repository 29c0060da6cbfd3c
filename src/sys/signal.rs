// SPDX-License-Identifier: Apache-2.0
//! Signals as something to read, in place of handlers.
//!
//! `SignalFd::new` blocks the signals for the calling thread, and for the threads and children made after it: call it
//! before there are threads. `std::process::Command` empties the mask of what it starts; other children call `reset`.

use libc::{c_int, signalfd_siginfo, sigset_t};
use rustix::io::{Errno, read, retry_on_intr};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::thread::JoinHandle;

pub const SIGHUP: i32 = libc::SIGHUP;
pub const SIGINT: i32 = libc::SIGINT;
pub const SIGQUIT: i32 = libc::SIGQUIT;
pub const SIGKILL: i32 = libc::SIGKILL;
pub const SIGUSR1: i32 = libc::SIGUSR1;
pub const SIGUSR2: i32 = libc::SIGUSR2;
pub const SIGPIPE: i32 = libc::SIGPIPE;
pub const SIGTERM: i32 = libc::SIGTERM;
pub const SIGCHLD: i32 = libc::SIGCHLD;
pub const SIGCONT: i32 = libc::SIGCONT;
pub const SIGSTOP: i32 = libc::SIGSTOP;
pub const SIGTSTP: i32 = libc::SIGTSTP;
pub const SIGTTIN: i32 = libc::SIGTTIN;
pub const SIGTTOU: i32 = libc::SIGTTOU;
pub const SIGWINCH: i32 = libc::SIGWINCH;

/// Blocked signals, readable one by one.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` in this thread; from now on they are read from here. Reading never waits.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        Self::of(set_of(signals)?)
    }

    /// As `new`, with every signal that can be blocked, except two that the C library keeps for its threads.
    pub fn all() -> io::Result<Self> {
        let mut set = set_of(&[])?;
        // SAFETY: the set is ours.
        unsafe { libc::sigfillset(&raw mut set) };
        Self::of(set)
    }

    fn of(set: sigset_t) -> io::Result<Self> {
        change_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: `set` is an initialised set, which the kernel only reads.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor and nobody else knows of it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The number of a signal that has come; `None` if there is none left. A signal sent twice may be told once.
    pub fn read(&self) -> io::Result<Option<i32>> {
        let mut info = [0; size_of::<signalfd_siginfo>()];
        match retry_on_intr(|| read(&self.0, &mut info)) {
            // `ssi_signo` is the first field, a u32.
            Ok(_) => {
                let [a, b, c, d, ..] = info;
                Ok(i32::try_from(u32::from_ne_bytes([a, b, c, d])).ok())
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a fresh program expects: nothing blocked, and SIGPIPE, which Rust's runtime ignores, with its default action.
/// Handlers need no reset, exec does that.
pub fn reset() -> io::Result<()> {
    default_action(libc::SIGPIPE)?;
    unblock_all()
}

/// Empties this thread's mask.
pub fn unblock_all() -> io::Result<()> {
    change_mask(libc::SIG_SETMASK, &set_of(&[])?)
}

/// Every signal is blocked in this thread as long as this lives; then the mask is as it was before.
#[derive(Debug)]
pub struct AllBlocked(sigset_t);

impl AllBlocked {
    pub fn new() -> io::Result<Self> {
        let (mut all, mut before) = (set_of(&[])?, set_of(&[])?);
        // SAFETY: the set is ours.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: one set is read, the other one written.
        match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) } {
            0 => Ok(Self(before)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        // A set that the kernel gave cannot be refused.
        let _ = change_mask(libc::SIG_SETMASK, &self.0);
    }
}

/// Sends a signal to one thread of this process, which should have it blocked. Nothing happens to one that has ended.
pub fn send_to<T>(thread: &JoinHandle<T>, signal: i32) -> io::Result<()> {
    // SAFETY: the thread was not joined yet, or there were no handle; a number that is no signal is an error.
    match unsafe { libc::pthread_kill(thread.as_pthread_t(), signal) } {
        0 | libc::ESRCH => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Takes a blocked signal that has come to this thread; false if there is none.
pub fn take(signal: i32) -> io::Result<bool> {
    let set = set_of(&[signal])?;
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both are read, and what is told of the signal is not asked for.
    let taken = unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const at_once) };
    if taken == signal {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
        error => Err(error),
    }
}

/// Gives a signal its default action.
pub fn default_action(signal: i32) -> io::Result<()> {
    set_action(signal, libc::SIG_DFL)
}

/// Has a signal ignored, by this process and by what it executes.
pub fn ignore(signal: i32) -> io::Result<()> {
    set_action(signal, libc::SIG_IGN)
}

fn set_action(signal: i32, action: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: no handler of ours runs: the action is one of the kernel's two.
    match unsafe { libc::signal(signal, action) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn set_of(signals: &[i32]) -> io::Result<sigset_t> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset writes a whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: it just has.
    let mut set = unsafe { set.assume_init() };
    for &signal in signals {
        // SAFETY: the set is initialised; a number that is no signal is an error.
        if unsafe { libc::sigaddset(&raw mut set, signal) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

fn change_mask(how: c_int, set: &sigset_t) -> io::Result<()> {
    // SAFETY: `set` is read, and the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid};
    use rustix::thread::gettid;
    use std::sync::mpsc;
    use std::thread;

    // Signals are sent to this thread alone: its siblings have other masks.
    fn raise(signal: i32) {
        // SAFETY: tgkill touches no memory; the thread is this one.
        let sent = unsafe {
            libc::syscall(libc::SYS_tgkill, getpid().as_raw_nonzero(), gettid().as_raw_nonzero(), signal)
        };
        assert_eq!(sent, 0);
    }

    #[test]
    fn a_blocked_signal_is_read_once() {
        let signals = SignalFd::new(&[SIGUSR1, SIGUSR2]).unwrap();
        raise(Signal::USR2.as_raw());
        assert_eq!(signals.read().unwrap(), Some(SIGUSR2));
        assert_eq!(signals.read().unwrap(), None);
    }

    #[test]
    fn a_signal_to_one_thread_is_taken_there_once() {
        let (ready, is_ready) = mpsc::channel();
        let (sent, is_sent) = mpsc::channel();
        let thread = thread::spawn(move || {
            let _blocked = AllBlocked::new().unwrap();
            ready.send(()).unwrap();
            is_sent.recv().unwrap();
            (take(SIGUSR1).unwrap(), take(SIGUSR1).unwrap())
        });
        is_ready.recv().unwrap();
        send_to(&thread, SIGUSR1).unwrap();
        sent.send(()).unwrap();
        assert_eq!(thread.join().unwrap(), (true, false));
    }

    #[test]
    fn a_number_that_is_no_signal_is_an_error() {
        assert!(SignalFd::new(&[65]).is_err());
        assert!(SignalFd::new(&[0]).is_err());
    }
}
