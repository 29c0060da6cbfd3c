// SPDX-License-Identifier: Apache-2.0
//! What is said of many figures: their quantiles, and how sure a comparison of two medians is.

/// How often the figures are drawn again for an interval.
const DRAWS: usize = 2000;

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(figures: &[f64]) -> f64 {
    let sorted = sorted(figures);
    let at = |n: usize| sorted.get(n).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (at(half.wrapping_sub(1)) + at(half)) / 2.0 } else { at(half) }
}

/// By nearest rank: the least figure that so many percent of them don't exceed.
pub(super) fn percentile(figures: &[f64], percent: usize) -> f64 {
    let rank = (figures.len() * percent).div_ceil(100);
    sorted(figures).get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub(super) fn least(figures: &[f64]) -> f64 {
    percentile(figures, 0)
}

fn sorted(figures: &[f64]) -> Vec<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Two medians compared, and where 95 of 100 such comparisons lie when the figures are drawn again with replacement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval {
    pub(super) fn of_ratio(these: &[f64], to: &[f64]) -> Self {
        Self::of(these, to, |this, to| this / to)
    }

    pub(super) fn of_difference(these: &[f64], from: &[f64]) -> Self {
        Self::of(these, from, |this, from| this - from)
    }

    fn of(these: &[f64], others: &[f64], compare: fn(f64, f64) -> f64) -> Self {
        let mut dice = Dice(0x0150_70d0);
        let drawn: Vec<f64> =
            (0..DRAWS).map(|_| compare(median(&dice.draw(these)), median(&dice.draw(others)))).collect();
        // Of 2000 in order: the 50th and the 1951st.
        let sorted = sorted(&drawn);
        let at = |n: usize| sorted.get(n).copied().unwrap_or(f64::NAN);
        Self {
            value: compare(median(these), median(others)),
            low: at(DRAWS / 40 - 1),
            high: at(DRAWS - DRAWS / 40),
        }
    }
}

/// SplitMix64 (G. Steele et al., "Fast Splittable Pseudorandom Number Generators"): the same figures, the same interval.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn draw(&mut self, figures: &[f64]) -> Vec<f64> {
        let sides = figures.len().max(1) as u64;
        let mut one = || usize::try_from(self.next() % sides).ok().and_then(|n| figures.get(n)).copied();
        figures.iter().filter_map(|_| one()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn percentiles_are_figures_that_were_measured() {
        let figures: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&figures, 50), 100.0);
        assert_eq!(percentile(&figures, 99), 198.0);
        assert_eq!(least(&figures), 1.0);
        assert_eq!(percentile(&[5.0, 9.0], 99), 9.0);
        assert!(percentile(&[], 99).is_nan());
    }

    #[test]
    fn figures_without_spread_give_a_sure_interval() {
        let sure = |value| Interval { value, low: value, high: value };
        assert_eq!(Interval::of_ratio(&[2.0; 9], &[4.0; 5]), sure(0.5));
        assert_eq!(Interval::of_difference(&[2.0; 9], &[4.0; 5]), sure(-2.0));
    }

    #[test]
    fn an_interval_holds_its_ratio_and_narrows_with_more_figures() {
        let spread =
            |n: u32| -> Vec<f64> { (0..n).map(|i| 100.0 + f64::from(i * 7 % n) / f64::from(n)).collect() };
        let wide = |n| {
            let ratio = Interval::of_ratio(&spread(n), &spread(n));
            assert!(ratio.low <= ratio.value && ratio.value <= ratio.high, "{ratio:?}");
            ratio.high - ratio.low
        };
        assert!(wide(5) > wide(500) && wide(500) > 0.0);
    }

    #[test]
    fn the_same_figures_give_the_same_interval() {
        let (a, b) = ([1.0, 2.0, 3.0, 5.0], [2.0, 4.0, 8.0]);
        assert_eq!(Interval::of_ratio(&a, &b), Interval::of_ratio(&a, &b));
    }
}
