// SPDX-License-Identifier: Apache-2.0
//! Why a container did not start.

use isopod_protocol::message::{AgentSays, Failed, FailedKind};
use std::fmt::Display;

/// Most bytes of a message: what was typed may be in it, and that may be long.
const MOST: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailedKind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: FailedKind, mut message: String) -> Self {
        message.truncate(message.floor_char_boundary(MOST));
        Self { kind, message }
    }

    pub(crate) fn setup(message: impl Into<String>) -> Self {
        Self::new(FailedKind::Setup, message.into())
    }
}

impl From<Failure> for AgentSays {
    fn from(Failure { kind, message }: Failure) -> Self {
        Self::Failed(Failed { kind: kind.into(), message })
    }
}

/// Says what was being done, to what.
pub(crate) trait Doing<T> {
    /// `cannot mount /proc: Operation not permitted`.
    fn doing(self, what: &str, object: impl AsRef<[u8]>) -> Result<T, Failure>;
}

impl<T, E: Display> Doing<T> for Result<T, E> {
    fn doing(self, what: &str, object: impl AsRef<[u8]>) -> Result<T, Failure> {
        self.map_err(|error| {
            let object = String::from_utf8_lossy(object.as_ref());
            let gap = if object.is_empty() { "" } else { " " };
            Failure::setup(format!("cannot {what}{gap}{object}: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_failure_says_what_was_done_to_what_and_why() {
        let failure = Err::<(), _>(Errno::PERM).doing("mount", "/proc").unwrap_err();
        assert_eq!(failure.message, "cannot mount /proc: Operation not permitted (os error 1)");
        let failure = Err::<(), _>(Errno::PERM).doing("make a session", "").unwrap_err();
        assert_eq!(failure.message, "cannot make a session: Operation not permitted (os error 1)");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(Failure::setup("ä".repeat(2000)).message.len(), MOST);
    }
}
