// SPDX-License-Identifier: Apache-2.0
//! What the host's tests and this kernel both go by. Either includes this file, so that no number stands twice.

/// What the kernel's image has where its orders go. Behind it are five words: deed, device or part, seed, first, count.
pub(crate) const MARK: [u8; 16] = *b"attacker, do so:";

#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u64)]
pub(crate) enum Deed {
    Sequences,
    Shapes,
    Names,
    Sweep,
    Agent,
}

/// In the order of their windows.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u64)]
pub(crate) enum Device {
    Boot,
    Image,
    Vsock,
    Rng,
}

impl Device {
    pub(crate) const ALL: [Self; 4] = [Self::Boot, Self::Image, Self::Vsock, Self::Rng];
}

/// What an agent plays.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u64)]
pub(crate) enum Part {
    Honest,
    Silent,
    Greeted,
    HangsUpEarly,
    HangsUp,
    BreaksOff,
    ShutsDown,
    WhileUp,
    BeforeHello,
    BeforeStart,
    Overruns,
    Floods,
    NothingForEver,
    Noise,
    LongText,
    /// Is up, and then attacks the device its connection goes through.
    AttacksFromWithin,
    Deaf,
    DeafWhileUp,
    Recovers,
}
