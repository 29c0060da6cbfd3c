// SPDX-License-Identifier: Apache-2.0
//! The device status machine (§2.1, §3.1.1), without I/O: what a write to the status register means.
//!
//! ```text
//!           ACKNOWLEDGE        DRIVER         FEATURES_OK           DRIVER_OK
//!    Reset ───────────► Acknowledged ──► Driver ──────────► Negotiated ──────────► Running
//!      ▲                                 features   │ refused  queues may      │ device.start
//!      │                                 may be ◄───┘ the bit  be set up       │
//!      │                                 chosen       stays off                │
//!      └──────────────── 0: device.stop, from anywhere ────────────────────────┤
//!                                                                              │
//!      FAILED, from anywhere: the driver has given up; device.stop, and only 0 leads out
//! ```
//!
//! One bit at a time, in this order; a write that skips a step, clears a bit (§2.1.1) or names an unknown one changes
//! nothing. DEVICE_NEEDS_RESET is the device's to set and is no step: it is shown beside the stage, and ignored in what a
//! driver writes, because a driver that ORs its next bit into what it read writes it back.

use serde::{Deserialize, Serialize};

pub const ACKNOWLEDGE: u32 = 1;
pub const DRIVER: u32 = 2;
pub const DRIVER_OK: u32 = 4;
pub const FEATURES_OK: u32 = 8;
pub const DEVICE_NEEDS_RESET: u32 = 64;
pub const FAILED: u32 = 128;

/// How far driver and device have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Stage {
    #[default]
    Reset,
    Acknowledged,
    Driver,
    Negotiated,
    Running,
}

/// Every combination of the two can be, so that one that was saved needs no check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    stage: Stage,
    failed: bool,
}

/// What the transport owes after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    /// Everything back to the beginning, the device stopped.
    Reset,
    /// The device gets its queues.
    Start,
    /// The device stops and waits for a reset.
    Stop,
}

impl Stage {
    fn bits(self) -> u32 {
        match self {
            Self::Reset => 0,
            Self::Acknowledged => ACKNOWLEDGE,
            Self::Driver => ACKNOWLEDGE | DRIVER,
            Self::Negotiated => ACKNOWLEDGE | DRIVER | FEATURES_OK,
            Self::Running => ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Self::Reset => Some(Self::Acknowledged),
            Self::Acknowledged => Some(Self::Driver),
            Self::Driver => Some(Self::Negotiated),
            Self::Negotiated => Some(Self::Running),
            Self::Running => None,
        }
    }
}

impl Status {
    /// The driver writes `value`; `acceptable` says whether the features it chose could be.
    pub fn write(self, value: u32, acceptable: bool) -> (Self, Effect) {
        let value = value & !DEVICE_NEEDS_RESET;
        if value == 0 {
            return (Self::default(), Effect::Reset);
        }
        if self.failed {
            return (self, Effect::Nothing);
        }
        if value == self.stage.bits() | FAILED {
            let effect = if self.stage == Stage::Running { Effect::Stop } else { Effect::Nothing };
            return (Self { failed: true, ..self }, effect);
        }
        match self.stage.next() {
            Some(Stage::Negotiated) if !acceptable => (self, Effect::Nothing),
            Some(stage) if value == stage.bits() => {
                let effect = if stage == Stage::Running { Effect::Start } else { Effect::Nothing };
                (Self { stage, ..self }, effect)
            }
            _ => (self, Effect::Nothing),
        }
    }

    /// What the driver reads, without DEVICE_NEEDS_RESET.
    pub fn bits(self) -> u32 {
        self.stage.bits() | if self.failed { FAILED } else { 0 }
    }

    /// The driver may choose features.
    pub fn takes_features(self) -> bool {
        !self.failed && self.stage == Stage::Driver
    }

    /// The driver may set up queues. Never while the device runs: addresses that change under a worker are how a guest
    /// gets a device to write outside the memory that was checked.
    pub fn takes_queues(self) -> bool {
        !self.failed && self.stage == Stage::Negotiated
    }

    pub fn runs(self) -> bool {
        !self.failed && self.stage == Stage::Running
    }

    /// The features are agreed on, and queues may have been set up.
    pub fn is_negotiated(self) -> bool {
        matches!(self.stage, Stage::Negotiated | Stage::Running)
    }

    /// The device runs, or ran until the driver gave up.
    pub fn was_started(self) -> bool {
        self.stage == Stage::Running
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn up_to(values: &[u32]) -> Status {
        values.iter().fold(Status::default(), |status, value| status.write(*value, true).0)
    }

    #[test]
    fn a_driver_that_keeps_to_the_order_gets_the_device_started_once() {
        let steps: Vec<_> = [1, 3, 11, 15, 15]
            .iter()
            .scan(Status::default(), |status, value| {
                let (next, effect) = status.write(*value, true);
                *status = next;
                Some(effect)
            })
            .collect();
        let nothing = Effect::Nothing;
        assert_eq!(steps, [nothing, nothing, nothing, Effect::Start, nothing]);
    }

    #[test]
    fn refused_features_leave_features_ok_unset() {
        let status = up_to(&[1, 3]);
        assert_eq!(status.write(11, false), (status, Effect::Nothing));
        assert_eq!(status.bits() & FEATURES_OK, 0);
    }

    #[test]
    fn steps_cannot_be_skipped_or_taken_back() {
        let status = up_to(&[1, 3, 11]);
        for value in [1, 2, 3, 4, 7, 9, 14, 31, 0x100, u32::MAX] {
            assert_eq!(status.write(value, true), (status, Effect::Nothing), "{value:#x}");
        }
    }

    #[test]
    fn a_driver_may_write_back_that_a_reset_is_needed() {
        let (status, effect) = up_to(&[1, 3, 11]).write(15 | DEVICE_NEEDS_RESET, true);
        assert_eq!((status.bits(), effect), (15, Effect::Start));
    }

    #[test]
    fn only_a_reset_leads_out_of_failed() {
        let (failed, effect) = up_to(&[1, 3, 11, 15]).write(15 | FAILED, true);
        assert_eq!(effect, Effect::Stop);
        assert_eq!(failed.write(15, true), (failed, Effect::Nothing));
        assert_eq!(failed.write(0, true), (Status::default(), Effect::Reset));
    }

    fn any_value() -> impl Strategy<Value = u32> {
        prop_oneof![prop::sample::select(vec![0u32, 1, 3, 11, 15, 64, 79, 128, 143]), any::<u32>(), 0u32..256]
    }

    proptest! {
        #[test]
        fn however_it_is_written_a_device_runs_only_between_start_and_reset_or_stop(
            writes in prop::collection::vec((any_value(), any::<bool>()), 0..60)
        ) {
            let mut status = Status::default();
            let mut running = false;
            for (value, acceptable) in writes {
                let before = status;
                let (next, effect) = status.write(value, acceptable);
                status = next;
                match effect {
                    Effect::Start => {
                        prop_assert!(!running && before.takes_queues());
                        running = true;
                    }
                    Effect::Stop => {
                        prop_assert!(running);
                        running = false;
                    }
                    Effect::Reset => {
                        prop_assert_eq!(status, Status::default());
                        running = false;
                    }
                    Effect::Nothing => {}
                }
                prop_assert_eq!(status.runs(), running);
                prop_assert_eq!(status.bits() & DEVICE_NEEDS_RESET, 0);
                prop_assert!([status.takes_features(), status.takes_queues(), running].iter().filter(|x| **x).count() <= 1);
            }
        }
    }
}
