// SPDX-License-Identifier: Apache-2.0
//! The agent's states and what leads from one to the next; drawn in `lib.rs`. No I/O.

/// Where the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Hello was said, nothing was asked for.
    Connected,
    Starting,
    Running,
    /// The process has ended; what it wrote is still under way.
    Draining,
    /// Everything was said. The host switches the machine off.
    Done,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Start,
    ProcessRuns,
    StartFailed,
    ProcessEnded,
    StreamsEnded,
}

impl State {
    /// The next state; `None` where this cannot happen, which is a lie if the host says it.
    pub(crate) fn after(self, happening: Happening) -> Option<Self> {
        Some(match (self, happening) {
            (Self::Connected, Happening::Start) => Self::Starting,
            (Self::Starting, Happening::ProcessRuns) => Self::Running,
            (Self::Starting, Happening::StartFailed) => Self::Done,
            (Self::Running, Happening::ProcessEnded) => Self::Draining,
            (Self::Draining, Happening::StreamsEnded) => Self::Done,
            _ => return None,
        })
    }

    /// Whether the host may speak of the container.
    pub(crate) fn has_container(self) -> bool {
        !matches!(self, Self::Connected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn happenings() -> impl Strategy<Value = Happening> {
        prop_oneof![
            Just(Happening::Start),
            Just(Happening::ProcessRuns),
            Just(Happening::StartFailed),
            Just(Happening::ProcessEnded),
            Just(Happening::StreamsEnded),
        ]
    }

    proptest! {
        #[test]
        fn one_start_at_most_is_accepted_and_done_is_the_end(steps in prop::collection::vec(happenings(), 0..40)) {
            let (mut state, mut starts) = (State::Connected, 0);
            for step in steps {
                if let Some(next) = state.after(step) {
                    prop_assert_ne!(state, State::Done);
                    starts += usize::from(step == Happening::Start);
                    state = next;
                }
            }
            prop_assert!(starts <= 1);
            prop_assert_eq!(state.has_container(), starts == 1);
        }
    }
}
