// SPDX-License-Identifier: Apache-2.0
//! Threads that close a filter behind themselves before they do anything else.

use crate::seccomp::{Rule, allow_only};
use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, JoinHandle};

/// A thread's word that its filter is closed, which it has not given yet: several threads close theirs at the same time.
#[derive(Debug)]
#[must_use = "until it is waited for the thread may have every system call"]
pub struct Closing(Receiver<io::Result<()>>);

impl Closing {
    /// Why the filter could not be had, if it could not; then the thread has done nothing.
    pub fn wait(self) -> io::Result<()> {
        self.0.recv().map_err(io::Error::other)?
    }
}

/// Starts a thread that has no system calls but these; without rules it has all of them. `stack` is in bytes.
pub fn spawn(
    name: &str,
    stack: usize,
    rules: Option<Vec<Rule>>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<(JoinHandle<()>, Closing)> {
    let (tell, told) = sync_channel(1);
    let closed = move || {
        let closed = rules.map_or(Ok(()), |rules| allow_only(&rules));
        let goes_on = closed.is_ok();
        // Who does not want to know has not waited for it either.
        let _ = tell.send(closed);
        if goes_on {
            body();
        }
    };
    let thread = Builder::new().name(name.to_owned()).stack_size(stack).spawn(closed)?;
    Ok((thread, Closing(told)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{MAX_INSTRUCTIONS, allow};
    use std::fs::read_to_string;
    use std::sync::mpsc::channel;

    const STACK: usize = 256 << 10;

    #[test]
    fn a_thread_with_rules_has_a_filter_and_one_without_has_none() {
        // What it takes to read a file, to tell, and to end.
        let calls = [
            libc::SYS_openat,
            libc::SYS_read,
            libc::SYS_statx,
            libc::SYS_lseek,
            libc::SYS_close,
            libc::SYS_fcntl,
            libc::SYS_futex,
            libc::SYS_brk,
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_mprotect,
            libc::SYS_mremap,
            libc::SYS_madvise,
            libc::SYS_sigaltstack,
            libc::SYS_rt_sigprocmask,
            libc::SYS_exit,
        ];
        let rules: Vec<Rule> = calls.into_iter().map(|call| allow(call, "a test")).collect();
        for (rules, mode) in [(Some(rules), "Seccomp:\t2"), (None, "Seccomp:\t0")] {
            let (tell, told) = channel();
            let body = move || tell.send(read_to_string("/proc/thread-self/status").unwrap()).unwrap();
            let (thread, closing) = spawn("confined", STACK, rules, body).unwrap();
            closing.wait().unwrap();
            assert!(told.recv().unwrap().contains(mode), "{mode}");
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_thread_without_its_filter_does_nothing() {
        // More than a filter can have.
        let rules = vec![allow(0, "a test"); MAX_INSTRUCTIONS];
        let (thread, closing) = spawn("unconfined", STACK, Some(rules), || panic!("it goes on")).unwrap();
        assert!(closing.wait().is_err());
        thread.join().unwrap();
    }
}
