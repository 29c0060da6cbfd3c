// SPDX-License-Identifier: Apache-2.0
//! The digest of the pages: of each that is not all zero, its number in the file (64 bits, little-endian) and then its 4096
//! bytes, in the order of the file. Pages of zeros are left out, so it is the same however the file has its holes.

use super::{Digest, PAGE, PAGE_LEN};
use sha2::{Digest as _, Sha256};
use std::iter::from_fn;
use std::ops::Range;

/// How much is read and hashed at once: a processor's cache has room for it.
pub(super) const AT_ONCE: usize = 256 << 10;

#[derive(Debug, Clone, Default)]
pub(super) struct PagesHash(Sha256);

impl PagesHash {
    /// Takes whole pages, none of them all zero, that lie at `offset` of the file.
    pub(super) fn update(&mut self, offset: u64, pages: &[u8]) {
        for (number, page) in (offset / PAGE..).zip(pages.chunks(PAGE_LEN)) {
            self.0.update(number.to_le_bytes());
            self.0.update(page);
        }
    }

    pub(super) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Where in `bytes`, which are whole pages, those that are not all zero lie: the longest runs of them.
pub(super) fn runs(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    from_fn(move || {
        let rest = bytes.get(at..)?;
        let start = at + PAGE_LEN * rest.chunks(PAGE_LEN).position(|page| !is_zero(page))?;
        let used = bytes[start..].chunks(PAGE_LEN).take_while(|page| !is_zero(page));
        at = start + used.map(<[u8]>::len).sum::<usize>();
        Some(start..at)
    })
}

/// By comparison with a page that is: the C library does that faster than a loop here, unoptimized ones above all.
fn is_zero(page: &[u8]) -> bool {
    const ZERO: [u8; PAGE_LEN] = [0; PAGE_LEN];
    page == &ZERO[..page.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_of_pages_that_are_not_zero() {
        let mut bytes = vec![0; 6 * PAGE_LEN];
        (bytes[PAGE_LEN], bytes[3 * PAGE_LEN - 1], bytes[5 * PAGE_LEN + 7]) = (1, 1, 1);
        let found: Vec<_> = runs(&bytes).collect();
        assert_eq!(found, [PAGE_LEN..3 * PAGE_LEN, 5 * PAGE_LEN..6 * PAGE_LEN]);
        assert_eq!(runs(&bytes[3 * PAGE_LEN..5 * PAGE_LEN]).count(), 0);
        assert_eq!(runs(&[]).count(), 0);
    }

    #[test]
    fn the_digest_is_of_numbers_and_contents() {
        let (mut one, mut two) = (PagesHash::default(), PagesHash::default());
        one.update(PAGE, &[7; PAGE_LEN]);
        two.update(2 * PAGE, &[7; PAGE_LEN]);
        let expected = Sha256::digest([&1u64.to_le_bytes()[..], &[7; PAGE_LEN]].concat());
        assert_eq!(one.clone().finish().0, <[u8; 32]>::from(expected));
        assert_ne!(one.finish(), two.finish());
    }
}
