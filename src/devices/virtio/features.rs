// SPDX-License-Identifier: Apache-2.0
//! Feature bits that belong to the transport and the rings, the same for every device (§6).

/// §6: modern devices only; a driver that does not take it is refused FEATURES_OK.
pub const VERSION_1: u64 = 1 << 32;

/// §2.7.7: both sides say how far the other may go before it must be told. Saves most exits and interrupts.
pub const EVENT_IDX: u64 = 1 << 29;

/// What the transport offers for every device.
///
/// Not `INDIRECT_DESC`: with it Linux allocates and fills a table for each request, more guest instructions than the two
/// to five direct descriptors it saves, and the device would have a second kind of chain to distrust.
pub const TRANSPORT: u64 = VERSION_1 | EVENT_IDX;

/// Whether a driver may have taken `accepted` of what was `offered` (§2.2.1, §6.1).
pub fn acceptable(offered: u64, accepted: u64) -> bool {
    accepted & !offered == 0 && accepted & VERSION_1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_may_take_less_than_is_offered() {
        assert!(acceptable(TRANSPORT, VERSION_1));
    }

    #[test]
    fn a_driver_may_not_take_what_is_not_offered() {
        assert!(!acceptable(TRANSPORT, TRANSPORT | 1));
    }

    #[test]
    fn a_legacy_driver_is_refused() {
        assert!(!acceptable(TRANSPORT, EVENT_IDX));
    }
}
