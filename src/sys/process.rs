// SPDX-License-Identifier: Apache-2.0
//! Processes made by hand: in new namespaces, in shared memory, replaced by a program, limited.
//!
//! `std::process` starts programs; pid 1 of a guest needs what lies between fork and exec.

use libc::{c_int, c_uint, c_void};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};
use std::cell::UnsafeCell;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::mem::size_of;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

pub mod machine;
pub mod program;
pub mod standby;

/// What a child has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(c_int);

impl Namespaces {
    pub const NONE: Self = Self(0);
    pub const USER: Self = Self(libc::CLONE_NEWUSER);
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);
    pub const PID: Self = Self(libc::CLONE_NEWPID);
    pub const IPC: Self = Self(libc::CLONE_NEWIPC);
    pub const UTS: Self = Self(libc::CLONE_NEWUTS);
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP);
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET);

    /// Gives this thread, which must be its process's only one, these. A new PID namespace is for its children alone.
    pub fn unshare(self) -> io::Result<()> {
        // SAFETY: no memory is involved, and the descriptor table stays shared as it was: only `CLONE_NEW*` can be in it.
        match unsafe { libc::unshare(self.0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Namespaces {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A child of this process.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    /// Readable once it has ended. The child stays a zombie, and its number its own, until somebody waits for it.
    pub pidfd: OwnedFd,
}

impl Child {
    /// Waits until it has ended, and says how. Whoever asks twice gets an error.
    pub fn wait(&self) -> io::Result<WaitIdStatus> {
        let ended = || waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        Ok(retry_on_intr(ended)?.ok_or(io::ErrorKind::NotFound)?)
    }

    /// Its mounts, as something to hold on to: while somebody does, its end does not have to take them apart.
    pub fn mounts(&self) -> io::Result<OwnedFd> {
        // `_IO(0xFF, 3)`, linux/pidfd.h.
        const PIDFD_GET_MNT_NAMESPACE: libc::Ioctl = 0xff03;
        // SAFETY: this request has no argument; 0 is what the kernel wants to see in its place.
        let fd = unsafe { libc::ioctl(self.pidfd.as_raw_fd(), PIDFD_GET_MNT_NAMESPACE, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Ends it, whatever it is doing; one that has ended already stays as it is.
    pub fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, Signal::KILL)?)
    }
}

/// The right to make children that go on in Rust; whoever has it knows that no other thread is in the middle of anything.
#[derive(Debug)]
pub struct OneThread(());

/// The stack of the children of `spawn_shared`; only its touched pages exist.
const STACK_LEN: usize = 256 * 1024;

#[repr(align(16))]
struct Stack(UnsafeCell<[u8; STACK_LEN]>);

// SAFETY: only `spawn_shared` uses it, one call at a time, since it wants the process's one `OneThread` for itself.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; STACK_LEN]));

impl OneThread {
    /// # Safety
    /// The process has one thread as long as this value lives, there is one such value at a time, and what its children
    /// run needs less than 256 KiB of stack. Whoever calls `close_all_but` uses no descriptor but that one afterwards.
    pub unsafe fn assume() -> Self {
        Self(())
    }

    /// Runs `child` in a new process *in this process's memory*, while this process sleeps until the child has executed
    /// a program (then the result is `None`) or `child` has returned (then the new process is at its end).
    ///
    /// As cheap as a child can be: no page is copied, and what it has to say is simply there. Descriptors, the
    /// directory, ids, mounts and signal mask are the child's own copies; what it opens and does not close is its alone.
    pub fn spawn_shared<T, F>(&mut self, own: Namespaces, child: F) -> io::Result<(Child, Option<T>)>
    where
        F: FnOnce() -> T,
    {
        let mut call = Call { run: Some(child), result: None };
        let mut pidfd: c_int = -1;
        let flags = own.0 | libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        let top = STACK.0.get().cast::<u8>().wrapping_add(STACK_LEN);
        // SAFETY: `top` is the aligned end of a stack that nobody else uses (`&mut self`), and large enough (`assume`).
        // `enter` gets the `Call` of its own type parameters, which outlives the child's use of it, since CLONE_VFORK
        // holds this thread until the child has another memory or none. There is no other thread to see it (`assume`).
        let pid = unsafe {
            libc::clone(
                enter::<F, T>,
                top.cast::<c_void>(),
                flags,
                (&raw mut call).cast::<c_void>(),
                &raw mut pidfd,
            )
        };
        // SAFETY: as the system call's result says, the kernel has put a new descriptor here.
        let child = unsafe { child_of(pid, pidfd) }?;
        Ok((child, call.result))
    }

    /// Runs `child` in a copy of this process, which ends with the code that `child` gives.
    pub fn fork<F>(&mut self, own: Namespaces, child: F) -> io::Result<Child>
    where
        F: FnOnce(OneThread) -> i32,
    {
        let mut pidfd: c_int = -1;
        let mut args = libc::clone_args {
            flags: u64::from((own.0 | libc::CLONE_PIDFD).cast_unsigned()),
            pidfd: (&raw mut pidfd).expose_provenance() as u64,
            child_tid: 0,
            parent_tid: 0,
            exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
            stack: 0,
            stack_size: 0,
            tls: 0,
            set_tid: 0,
            set_tid_size: 0,
            cgroup: 0,
        };
        // SAFETY: without CLONE_VM and a stack the child gets copies of everything, this frame among it; as this
        // process has one thread (`assume`), no lock is held by one that the child lacks.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
        if pid == 0 {
            let code = child(Self(()));
            // SAFETY: ends the process, without the clean-up that its parent will do.
            unsafe { libc::_exit(code) };
        }
        let pid = c_int::try_from(pid).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: as above.
        unsafe { child_of(pid, pidfd) }
    }

    /// Closes every descriptor but one, for a copy that goes on alone; who owned them is never to be dropped.
    pub fn close_all_but(&mut self, keep: BorrowedFd<'_>) -> io::Result<()> {
        let keep = keep.as_raw_fd().cast_unsigned();
        for (first, last) in [(0, keep.checked_sub(1)), (keep + 1, Some(c_uint::MAX))] {
            let Some(last) = last else { continue };
            // SAFETY: closes descriptors that nobody uses any more (`assume`).
            if unsafe { libc::close_range(first, last, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

struct Call<F, T> {
    run: Option<F>,
    result: Option<T>,
}

/// Where a child of `spawn_shared` begins.
extern "C" fn enter<F: FnOnce() -> T, T>(call: *mut c_void) -> c_int {
    // SAFETY: `spawn_shared` gives a pointer to a `Call` of these types and does not touch it meanwhile.
    let call = unsafe { &mut *call.cast::<Call<F, T>>() };
    if let Some(run) = call.run.take() {
        call.result = Some(run());
    }
    0
}

/// What clone said, as a child or an error.
///
/// # Safety
/// If `pid` is positive, `pidfd` is an open descriptor that nobody else owns.
unsafe fn child_of(pid: c_int, pidfd: c_int) -> io::Result<Child> {
    // One below zero is an error, and nothing that a `Pid` is made of.
    match Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw) {
        Some(pid) => {
            // SAFETY: what the caller owes.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Arguments or an environment, as exec wants them.
#[derive(Debug)]
pub struct Strings {
    pointers: Vec<*const c_char>,
    // What `pointers` point into.
    _owned: Vec<CString>,
}

impl Strings {
    pub fn new(owned: Vec<CString>) -> Self {
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _owned: owned }
    }
}

/// Replaces this process by a program. Comes back only with an error.
pub fn execute(program: &CStr, args: &Strings, env: &Strings) -> io::Error {
    // SAFETY: a string and two null-terminated arrays of strings, which live as long as their owners.
    unsafe { libc::execve(program.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Limits a resource of this process (`RLIMIT_*`).
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is read; a number that is no resource is an error.
    match unsafe { libc::setrlimit64(resource, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a signal, also one without a name (`SIGRTMIN` and up).
pub fn kill(process: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved; a number that is no signal is an error.
    match unsafe { libc::kill(process.as_raw_nonzero().get(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests;
