// SPDX-License-Identifier: Apache-2.0
//! Bytes as lower-case hexadecimal text: ids, and the names of what is named by a hash.

use std::fmt::Write;

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The first 64 bits: enough to name a handful of things by.
pub(crate) fn short(hash: impl AsRef<[u8]>) -> String {
    hex(&hash.as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_two_digits() {
        assert_eq!(hex([0, 0x0f, 0xa0, 0xff]), "000fa0ff");
        assert_eq!(short([1; 32]), "0101010101010101");
    }
}
