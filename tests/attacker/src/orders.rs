// SPDX-License-Identifier: Apache-2.0
//! What the host wants done. It finds the mark in this kernel's image and overwrites what is behind it.

use crate::numbers::MARK;
use core::ptr;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Orders {
    mark: [u8; 16],
    pub(crate) deed: u64,
    /// The device's number, or the agent's part.
    pub(crate) device: u64,
    pub(crate) seed: u64,
    pub(crate) first: u64,
    pub(crate) count: u64,
}

#[unsafe(link_section = ".data")]
static ORDERS: Orders = Orders { mark: MARK, deed: 0, device: 0, seed: 0, first: 0, count: 0 };

impl Orders {
    pub(crate) fn read() -> Self {
        // SAFETY: it is a static. Volatile, as the image may have been written to after the compiler saw it.
        unsafe { ptr::read_volatile(&raw const ORDERS) }
    }
}
