// SPDX-License-Identifier: Apache-2.0
//! Numbers that look like chance and are the same each time (xorshift64*).

#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Those of one sequence.
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        let mut state = seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self((state ^ (state >> 29)) | 1)
    }

    pub(crate) fn long(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn word(&mut self) -> u32 {
        (self.long() >> 32) as u32
    }

    pub(crate) fn half(&mut self) -> u16 {
        (self.long() >> 48) as u16
    }

    /// Less than `n`, which is not 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.long() % n
    }

    /// Once in `n` times.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub(crate) fn bytes(&mut self, into: &mut [u8]) {
        for piece in into.chunks_mut(8) {
            let word = self.long().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }
}
