// SPDX-License-Identifier: Apache-2.0
//! Failures as a user sees them: what failed, its causes, the next step; and the exit code.
//!
//! ```text
//! error: cannot use this host's KVM
//!   cause: cannot open /dev/kvm
//!   cause: Permission denied (os error 13)
//!   hint:  you may not open /dev/kvm: `sudo usermod -aG kvm $USER`, then log in again
//! ```

use super::human;
use isopod_engine::{EngineError, exit_code};
use std::error::Error;
use std::fmt;

/// Of every verb but `run`, as Docker has it.
const FAILED: u8 = 1;
/// Of wrong usage, and of a `run` that did not get as far as the process.
pub(super) const NOT_RUN: u8 = 125;

#[derive(Debug)]
pub(super) struct Failure {
    error: EngineError,
    code: u8,
}

impl Failure {
    /// Of a `run`: the code tells it from the process's own.
    pub(super) fn of_run(error: EngineError) -> Self {
        let code = exit_code(error.kind());
        Self { error, code }
    }

    pub(super) fn code(&self) -> u8 {
        self.code
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self { error, code: FAILED }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain("error", &self.error))
    }
}

/// An error with its causes and its hint, without a newline at the end. What strangers say is in it, so that nothing of it
/// may move a cursor.
pub(super) fn chain(word: &str, error: &EngineError) -> String {
    let mut text = format!("{word}: {}", human::plain(&error.to_string()));
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(&format!("\n  cause: {}", human::plain(&e.to_string())));
        cause = e.source();
    }
    if let Some(hint) = error.advice() {
        text.push_str(&format!("\n  hint:  {}", human::plain(hint)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_engine::Kind;
    use std::io;

    #[test]
    fn what_strangers_say_moves_no_cursor() {
        let error =
            EngineError::new(Kind::Invalid, "cannot pull x").because(io::Error::other("\u{1b}]0;me\u{7}\n"));
        assert_eq!(chain("error", &error), "error: cannot pull x\n  cause: \u{fffd}]0;me\u{fffd}\u{fffd}");
    }

    #[test]
    fn an_error_is_told_with_cause_and_next_step() {
        let error = EngineError::new(Kind::Unavailable, "cannot start web")
            .because(io::Error::from_raw_os_error(13))
            .hint("ask root");
        assert_eq!(
            chain("error", &error),
            "error: cannot start web\n  cause: Permission denied (os error 13)\n  hint:  ask root"
        );
    }

    #[test]
    fn codes_are_dockers() {
        let code = |kind| Failure::of_run(EngineError::new(kind, "x")).code();
        assert_eq!([Kind::NoCommand, Kind::NotExecutable, Kind::Io].map(code), [127, 126, 125]);
        assert_eq!(Failure::from(EngineError::new(Kind::NotFound, "x")).code(), 1);
    }
}
