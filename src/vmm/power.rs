// SPDX-License-Identifier: Apache-2.0
//! How a guest says that it ends: pvpanic (QEMU's `docs/specs/pvpanic.rst`) and the keyboard controller's reset line.

use crate::arch::layout;
use crate::wire::End;

const PVPANIC_PANICKED: u8 = 1 << 0;
const PVPANIC_SHUTDOWN: u8 = 1 << 2;
const RESET_PULSE: u8 = 0xfe;

/// What the guest meant by writing `value` to `port`, if it meant an end.
pub(crate) fn on_write(port: u16, value: u8) -> Option<End> {
    match port {
        layout::PVPANIC_PORT if value & PVPANIC_PANICKED != 0 => Some(End::Panicked),
        layout::PVPANIC_PORT if value & PVPANIC_SHUTDOWN != 0 => Some(End::PoweredOff),
        layout::RESET_PORT if value == RESET_PULSE => Some(End::Rebooted),
        _ => None,
    }
}

/// What a read from `port` gives: the events pvpanic knows; a keyboard controller that is always ready.
pub(crate) fn on_read(port: u16) -> Option<u8> {
    match port {
        layout::PVPANIC_PORT => Some(PVPANIC_PANICKED | PVPANIC_SHUTDOWN),
        layout::RESET_PORT => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_that_mean_an_end_end_it() {
        assert_eq!(on_write(0x505, 1), Some(End::Panicked));
        assert_eq!(on_write(0x505, 4), Some(End::PoweredOff));
        assert_eq!(on_write(0x64, 0xfe), Some(End::Rebooted));
        assert_eq!(on_write(0x505, 2), None);
        assert_eq!(on_write(0x64, 0xd1), None);
        assert_eq!(on_write(0x80, 0xfe), None);
    }
}
