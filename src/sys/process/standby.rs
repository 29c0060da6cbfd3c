// SPDX-License-Identifier: Apache-2.0
//! A child in this process's memory that makes itself ready, sleeps, and later goes on with what it is given.
//!
//! ```text
//!   parent   ── stand_by ──┐ sleeps  ┌── anything ──── go ──┐ sleeps                              ┌── goes on
//!   child                  └─ begins ┘ sleeps in `wait`      └─ goes on with the order ─ executes ┘
//! ```
//!
//! One word tells whose turn it is. The kernel itself gives the turn back when the child executes or ends, for the word
//! is also the one that it clears when a child leaves its memory (`CLONE_CHILD_CLEARTID`). So never do both run, which is
//! what makes sharing memory no more than passing a value.

use super::{Child, Namespaces, OneThread, child_of};
use libc::{c_int, c_void};
use rustix::thread::futex::{self, Flags};
use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

/// What `stand_by`'s children have; only its touched pages exist.
const STACK_LEN: usize = 128 * 1024;
/// Of the parent; as the kernel leaves it.
const PARENT: u32 = 0;
const CHILD: u32 = 1;

#[repr(align(16))]
struct Stack(UnsafeCell<[u8; STACK_LEN]>);

impl<O, T> fmt::Debug for Standby<O, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standby").field("child", &self.child).finish_non_exhaustive()
    }
}

impl<O, T> fmt::Debug for Turn<O, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turn")
    }
}

/// What both have.
struct Shared<O, T> {
    turn: AtomicU32,
    order: UnsafeCell<Option<O>>,
    result: UnsafeCell<Option<T>>,
}

impl<O, T> Shared<O, T> {
    /// Sleeps while it is somebody's turn. Interruptions and futile waking only make it look again.
    fn sleep_while(&self, whose: u32) {
        while self.turn.load(Ordering::Acquire) == whose {
            // Not a private futex: the kernel's own waking is not.
            let _ = futex::wait(&self.turn, Flags::empty(), whose, None);
        }
    }

    fn give_turn(&self, to: u32) {
        self.turn.store(to, Ordering::Release);
        let _ = futex::wake(&self.turn, Flags::empty(), 1);
    }
}

/// The child's end.
pub struct Turn<O: 'static, T: 'static>(&'static Shared<O, T>);

impl<O: 'static, T: 'static> Turn<O, T> {
    /// Sleeps until there is an order. If the parent goes away before, so may this: it is for the parent to see to.
    pub fn wait(self) -> O {
        loop {
            self.0.give_turn(PARENT);
            self.0.sleep_while(PARENT);
            // SAFETY: it is the child's turn, so the parent sleeps in `take_back`.
            if let Some(order) = unsafe { &mut *self.0.order.get() }.take() {
                return order;
            }
        }
    }
}

/// A child that sleeps. It and its stack stay until the process ends, unless it is told to go.
pub struct Standby<O: 'static, T: 'static> {
    pub child: Child,
    shared: &'static Shared<O, T>,
}

impl<O: 'static, T: 'static> Standby<O, T> {
    /// Lets the child go on, while this process sleeps until it has executed a program (then the result is `None`) or has
    /// returned (then it is at its end).
    pub fn go(self, order: O) -> (Child, Option<T>) {
        // SAFETY: it is the parent's turn, so the child sleeps in `wait` and looks only once it has the turn.
        unsafe { *self.shared.order.get() = Some(order) };
        self.shared.give_turn(CHILD);
        self.shared.sleep_while(CHILD);
        // SAFETY: the child has left this memory.
        let result = unsafe { &mut *self.shared.result.get() }.take();
        (self.child, result)
    }

    /// Ends the child where it sleeps.
    pub fn dismiss(self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

struct Call<F, O: 'static, T: 'static> {
    run: Option<F>,
    shared: &'static Shared<O, T>,
}

impl OneThread {
    /// Runs `child` in a new process in this process's memory until it waits for its turn (`Ok`) or returns (`Err`, with
    /// what it returned). As for `spawn_shared`, descriptors, directory, ids and mounts are the child's own.
    pub fn stand_by<O, T, F>(&mut self, own: Namespaces, child: F) -> io::Result<Result<Standby<O, T>, T>>
    where
        F: FnOnce(Turn<O, T>) -> T + 'static,
        O: 'static,
        T: 'static,
    {
        // Neither is ever freed: the child may sleep for ever.
        let stack: &'static Stack = Box::leak(Box::new(Stack(UnsafeCell::new([0; STACK_LEN]))));
        let shared: &'static Shared<O, T> = Box::leak(Box::new(Shared {
            turn: AtomicU32::new(CHILD),
            order: UnsafeCell::new(None),
            result: UnsafeCell::new(None),
        }));
        let call = Box::leak(Box::new(Call { run: Some(child), shared }));
        let mut pidfd: c_int = -1;
        let flags = own.0 | libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | libc::CLONE_PIDFD | libc::SIGCHLD;
        let top = stack.0.get().cast::<u8>().wrapping_add(STACK_LEN);
        // SAFETY: `top` is the aligned end of a stack that is this child's alone, and large enough (`assume`). `enter`
        // gets the `Call` of its own type parameters, which is never freed and which nobody else uses. The child and
        // this thread never run at the same time: each sleeps until it has the turn, and the kernel clears the word,
        // which is never freed either, when the child has left this memory.
        let pid = unsafe {
            libc::clone(
                enter::<F, O, T>,
                top.cast::<c_void>(),
                flags,
                (&raw mut *call).cast::<c_void>(),
                &raw mut pidfd,
                null_mut::<c_void>(),
                shared.turn.as_ptr(),
            )
        };
        // SAFETY: as the system call's result says, the kernel has put a new descriptor here.
        let child = unsafe { child_of(pid, pidfd) }?;
        shared.sleep_while(CHILD);
        // SAFETY: it is the parent's turn.
        match unsafe { &mut *shared.result.get() }.take() {
            Some(result) => Ok(Err(result)),
            None => Ok(Ok(Standby { child, shared })),
        }
    }
}

/// Where the child begins.
extern "C" fn enter<F, O, T>(call: *mut c_void) -> c_int
where
    F: FnOnce(Turn<O, T>) -> T,
    O: 'static,
    T: 'static,
{
    // SAFETY: `stand_by` gives a pointer to a `Call` of these types and does not touch it again.
    let call = unsafe { &mut *call.cast::<Call<F, O, T>>() };
    if let Some(run) = call.run.take() {
        let result = run(Turn(call.shared));
        // SAFETY: it is the child's turn until it ends.
        unsafe { *call.shared.result.get() = Some(result) };
    }
    0
}
