// SPDX-License-Identifier: Apache-2.0
//! The signals a foreground container takes in our stead.

use isopod_sys::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
pub(crate) use isopod_sys::signal::{SIGWINCH, SignalFd};
use std::io;

const TAKEN: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGWINCH];

/// From now on these signals are read, not obeyed. The machine's process inherits that: it is in our terminal's
/// foreground group, and a Ctrl-C there is for the container to take, not for its machine to die of.
pub(crate) fn take() -> io::Result<SignalFd> {
    SignalFd::new(&TAKEN)
}

/// Whether this one means "end", to whoever has not started anything yet.
pub(crate) fn ends(signal: i32) -> bool {
    matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM)
}
