// SPDX-License-Identifier: Apache-2.0
//! The life of a container.
//!
//! ```text
//!                                        ┌──Unpause── Paused ──End──┐
//!                                        ▼  ──Pause─────►            ▼
//!   Created ──Start──► Starting ──Up──► Running ────────────End──► Exited
//!      │                   │                                         ▲ ▲
//!      │                   └───────────────────End───────────────────┘ │
//!      └───────────────────────────────End─────────────────────────────┘
//! ```
//!
//! `End` before `Up` is a start that failed or was broken off. Nothing follows `Exited` but removal.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How a process that nobody could ask any more is said to have ended: by SIGKILL.
pub const KILLED: u8 = 128 + 9;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum State {
    Created,
    Starting,
    Running {
        since: u64,
    },
    /// Its machine stands still.
    Paused {
        since: u64,
    },
    Exited(Exit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell has it: the process's own code, or 128 and the signal's number.
    pub code: u8,
    /// Why, where the code does not say it.
    pub reason: Option<String>,
    pub out_of_memory: bool,
    /// Seconds since the epoch.
    pub at: u64,
}

impl Exit {
    pub fn new(code: u8, at: u64) -> Self {
        Self { code, reason: None, out_of_memory: false, at }
    }

    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Start,
    Up { at: u64 },
    Pause,
    Unpause,
    End(Exit),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a container that is {from} can't {to}")]
pub struct Impossible {
    from: &'static str,
    to: &'static str,
}

impl State {
    pub fn after(&self, change: Change) -> Result<Self, Impossible> {
        match (self, change) {
            (Self::Created, Change::Start) => Ok(Self::Starting),
            (Self::Starting, Change::Up { at }) => Ok(Self::Running { since: at }),
            (Self::Running { since }, Change::Pause) => Ok(Self::Paused { since: *since }),
            (Self::Paused { since }, Change::Unpause) => Ok(Self::Running { since: *since }),
            (from, Change::End(exit)) if !from.is_over() => Ok(Self::Exited(exit)),
            (from, change) => Err(Impossible { from: from.name(), to: change.verb() }),
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self, Self::Exited(_))
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Exited(_) => "exited",
        }
    }

    /// What it is once its owner is gone without a word.
    #[must_use]
    pub fn abandoned(&self, at: u64) -> Self {
        match self {
            Self::Exited(exit) => Self::Exited(exit.clone()),
            _ => Self::Exited(Exit::new(KILLED, at).because("killed")),
        }
    }
}

impl Change {
    fn verb(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Up { .. } => "come up",
            Self::Pause => "be paused",
            Self::Unpause => "be unpaused",
            Self::End(_) => "end",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_change() -> impl Strategy<Value = Change> {
        prop_oneof![
            Just(Change::Start),
            any::<u64>().prop_map(|at| Change::Up { at }),
            Just(Change::Pause),
            Just(Change::Unpause),
            any::<u8>().prop_map(|code| Change::End(Exit::new(code, 0))),
        ]
    }

    /// How far along its life a state is.
    fn rank(state: &State) -> u8 {
        match state {
            State::Created => 0,
            State::Starting => 1,
            State::Running { .. } | State::Paused { .. } => 2,
            State::Exited(_) => 3,
        }
    }

    proptest! {
        #[test]
        fn a_life_only_goes_forward_and_can_always_end(changes in prop::collection::vec(any_change(), 0..12)) {
            let mut state = State::Created;
            for change in changes {
                prop_assert_eq!(state.after(Change::End(Exit::new(0, 0))).is_ok(), !state.is_over());
                let pauses = matches!(change, Change::Pause | Change::Unpause);
                if let Ok(next) = state.after(change) {
                    prop_assert!(rank(&next) > rank(&state) || pauses && next.name() != state.name());
                    state = next;
                }
            }
        }

        #[test]
        fn a_state_survives_being_written_down(code in any::<u8>(), at in any::<u64>()) {
            for state in [State::Created, State::Running { since: at }, State::Paused { since: at }, State::Exited(Exit::new(code, at).because("x"))] {
                let text = serde_json::to_string(&state).unwrap();
                prop_assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
            }
        }
    }

    #[test]
    fn what_is_running_when_its_owner_dies_was_killed() {
        let State::Exited(exit) = (State::Running { since: 1 }).abandoned(2) else { panic!("it is over") };
        assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("killed")));
    }

    #[test]
    fn what_has_exited_stays_so_when_its_owner_dies() {
        let state = State::Exited(Exit::new(3, 1));
        assert_eq!(state.abandoned(9), state);
    }
}
