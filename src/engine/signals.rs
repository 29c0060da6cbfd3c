// SPDX-License-Identifier: Apache-2.0
//! The signals a foreground container takes in our stead.

use isopod_sys::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
pub(crate) use isopod_sys::signal::{SIGWINCH, SignalFd};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

const TAKEN: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGWINCH];

/// So many of one kind, so close together, mean it, though the process does not heed them. (Docker's client says three.)
const INSISTENT: usize = 3;
const CLOSE: Duration = Duration::from_secs(3);

/// From now on these signals are read, not obeyed. (The machine's process takes none at all: what is sent to the whole
/// group of processes, be it by a terminal's Ctrl-C or a service manager, is for the container to take.)
pub(crate) fn take() -> io::Result<SignalFd> {
    SignalFd::new(&TAKEN)
}

/// Whether this one means "end", to whoever has not started anything yet.
pub(crate) fn ends(signal: i32) -> bool {
    matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM)
}

/// Hears when somebody insists on an end: process 1 of a container is not ended by a signal it has no handler for.
#[derive(Debug, Default)]
pub(crate) struct Insistence(VecDeque<Instant>);

impl Insistence {
    /// Whether this signal, come now, is one too many.
    pub(crate) fn grows(&mut self, signal: i32, now: Instant) -> bool {
        if !matches!(signal, SIGINT | SIGTERM) {
            return false;
        }
        self.0.push_back(now);
        self.0.retain(|at| now.duration_since(*at) < CLOSE);
        self.0.len() >= INSISTENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(signals: &[(i32, u64)]) -> bool {
        let (mut insistence, start) = (Insistence::default(), Instant::now());
        let mut times = signals.iter().map(|(signal, s)| (signal, start + Duration::from_secs(*s)));
        times.any(|(signal, at)| insistence.grows(*signal, at))
    }

    #[test]
    fn three_close_together_insist_and_three_far_apart_do_not() {
        assert!(heard(&[(SIGINT, 0), (SIGTERM, 1), (SIGINT, 2)]));
        assert!(heard(&[(SIGINT, 0), (SIGINT, 10), (SIGINT, 11), (SIGINT, 12)]));
        assert!(!heard(&[(SIGINT, 0), (SIGINT, 2), (SIGINT, 4), (SIGINT, 6)]));
        assert!(!heard(&[(SIGUSR1, 0), (SIGHUP, 0), (SIGUSR1, 0), (SIGUSR1, 0)]));
    }
}
