// SPDX-License-Identifier: Apache-2.0
//! Ports, the serial console behind one of them, which is how this kernel is heard, and the clock.

use crate::entry::{Arguments, Call, call};
use core::arch::asm;

const CONSOLE: u64 = 0x3f8;

/// `call` is one of the six for ports; `at` is where what is read goes.
pub(crate) fn ports(width: Call, first: u16, count: u64, (at, value): (u64, u32)) {
    call(width, Arguments { at, count, place: first.into(), value });
}

/// What the processor's clock says.
pub(crate) fn clock() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: it reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// What can be told: texts and numbers, without the machinery of `core::fmt`.
pub(crate) trait Tell {
    fn tell(self);
}

impl Tell for &str {
    fn tell(self) {
        if !self.is_empty() {
            let arguments =
                Arguments { at: self.as_ptr() as u64, count: self.len() as u64, place: CONSOLE, value: 0 };
            call(Call::Say, arguments);
        }
    }
}

impl Tell for u64 {
    fn tell(self) {
        let mut digits = [0; 20];
        let (mut left, mut from) = (self, digits.len());
        loop {
            from -= 1;
            digits[from] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        str::from_utf8(&digits[from..]).unwrap_or_default().tell();
    }
}

impl Tell for u32 {
    fn tell(self) {
        u64::from(self).tell();
    }
}

impl Tell for usize {
    fn tell(self) {
        (self as u64).tell();
    }
}

/// A line on the console.
macro_rules! tell {
    ($($part:expr),+ $(,)?) => {{
        $($crate::port::Tell::tell($part);)+
        $crate::port::Tell::tell("\n");
    }};
}
pub(crate) use tell;
