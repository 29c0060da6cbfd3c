// SPDX-License-Identifier: Apache-2.0
//! The user's terminal: its size, and raw mode that is given back on every way out.

use isopod_protocol::message::WindowSize;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

/// What a terminal of unknown size is taken for.
const UNKNOWN: WindowSize = WindowSize { rows: 24, columns: 80 };

/// The terminal in raw mode, if one is, and what it was before: where a panic finds it.
static BEFORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// A terminal in raw mode; dropping it gives the mode back.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    pub(crate) fn set(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let next = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((terminal.try_clone_to_owned()?, before));
        let set = Self(());
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(set)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some((terminal, before)) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}

/// The size of the first of these that is a terminal.
pub(crate) fn size(of: &[BorrowedFd<'_>]) -> WindowSize {
    let size = of.iter().find_map(|fd| tcgetwinsize(fd).ok()).filter(|s| s.ws_row > 0 && s.ws_col > 0);
    size.map_or(UNKNOWN, |s| WindowSize { rows: s.ws_row.into(), columns: s.ws_col.into() })
}

/// The streams a foreground container is attached to.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'a> {
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
}

impl Streams<'static> {
    /// This process's own.
    pub fn own() -> Self {
        Self { stdin: stdin(), stdout: stdout(), stderr: stderr() }
    }
}

impl Streams<'_> {
    pub(crate) fn stdin_is_terminal(&self) -> bool {
        isatty(self.stdin)
    }
}
