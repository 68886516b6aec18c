//! Zipf-distributed ranks. Owns the sampler; never decides which key a rank stands for.
//!
//! Rank `k` in `1..=n` has probability proportional to `k^-s`. The method is rejection-inversion
//! (W. Hormann and G. Derflinger, "Rejection-inversion to generate variates from monotone discrete
//! distributions", ACM TOMACS 6(3), 1996): constant time and space for any `n` and any `s > 0`,
//! 1 included, with about one draw in ten rejected.
//!
//! The idea. Let `h(x) = x^-s` and `H` its integral. A bar of height `h(k)` over
//! `[k - 1/2, k + 1/2]` fits under the area of `h` over the same interval, because `h` is convex.
//! So: draw a point `u` uniformly on the axis of areas, invert it to `x = H^-1(u)`, round to the
//! nearest rank `k`, and accept if `u` falls in the last `h(k)` of the bar's area, that is if
//! `u >= H(k + 1/2) - h(k)`. The first bar's area is cut to exactly `h(1)`, so rank 1, the most
//! frequent, is never rejected. A test on `k - x` alone (the "squeeze") accepts most draws without
//! evaluating `H`.

use crate::random::Random;

/// Draws ranks from `1..=n` with probability proportional to `rank^-s`.
#[derive(Clone, Debug)]
pub struct Zipf {
    ranks: f64,
    exponent: f64,
    /// `H(3/2) - h(1)`: where the areas of accepted points begin.
    area_first: f64,
    /// `H(n + 1/2)`: where they end.
    area_last: f64,
    /// A rank this little above `x` is accepted without evaluating `H`.
    squeeze: f64,
}

impl Zipf {
    /// A sampler of ranks `1..=ranks`.
    ///
    /// # Panics
    /// If `ranks` is zero or `exponent` is not positive.
    pub fn new(ranks: u64, exponent: f64) -> Self {
        assert!(ranks >= 1, "a Zipf distribution needs at least one rank");
        assert!(exponent > 0.0, "Zipf exponent must be positive; use uniform for 0");
        let mut zipf =
            Self { ranks: ranks as f64, exponent, area_first: 0.0, area_last: 0.0, squeeze: 0.0 };
        zipf.area_first = zipf.area(1.5) - zipf.height(1.0);
        zipf.area_last = zipf.area(zipf.ranks + 0.5);
        zipf.squeeze = 2.0 - zipf.position(zipf.area(2.5) - zipf.height(2.0));
        zipf
    }

    /// The next rank, 1 being the most frequent.
    #[inline]
    pub fn sample(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.area_last + random.unit() * (self.area_first - self.area_last);
            let x = self.position(area);
            let rank = (x + 0.5).floor().clamp(1.0, self.ranks);
            if rank - x <= self.squeeze || area >= self.area(rank + 0.5) - self.height(rank) {
                return rank as u64;
            }
        }
    }

    /// `h(x) = x^-s`.
    fn height(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// `H(x)`, the integral of `h` from 1 to x: `(x^(1-s) - 1) / (1 - s)`, or `ln x` for s = 1.
    fn area(&self, x: f64) -> f64 {
        let log = x.ln();
        log * exp_minus_one_over((1.0 - self.exponent) * log)
    }

    /// The inverse of `area`: `(1 + u (1 - s))^(1 / (1 - s))`, or `e^u` for s = 1.
    fn position(&self, area: f64) -> f64 {
        // Rounding may carry the product just below -1, where the logarithm does not exist.
        let t = (area * (1.0 - self.exponent)).max(-1.0);
        (area * log_one_plus_over(t)).exp()
    }
}

/// `(e^t - 1) / t`, continued by its series where the quotient would be 0 / 0 (s = 1).
fn exp_minus_one_over(t: f64) -> f64 {
    if t.abs() > 1e-8 { t.exp_m1() / t } else { 1.0 + t / 2.0 }
}

/// `ln(1 + t) / t`, continued likewise.
fn log_one_plus_over(t: f64) -> f64 {
    if t.abs() > 1e-8 { t.ln_1p() / t } else { 1.0 - t / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the frequencies are those of the definition. Method: chi-square against the exact
    /// probabilities of all ranks; 99 degrees of freedom, whose 99.9 % quantile is 148.
    #[test]
    fn frequencies_match_the_definition() {
        const RANKS: usize = 100;
        const DRAWS: u32 = 200_000;
        for exponent in [0.5, 0.8, 0.99, 1.0, 1.1, 2.0] {
            let zipf = Zipf::new(RANKS as u64, exponent);
            let mut random = Random::new(42);
            let mut seen = [0_u32; RANKS];
            for _ in 0..DRAWS {
                seen[zipf.sample(&mut random) as usize - 1] += 1;
            }
            let weight = |k: usize| ((k + 1) as f64).powf(-exponent);
            let total: f64 = (0..RANKS).map(weight).sum();
            let chi_square: f64 = (0..RANKS)
                .map(|k| {
                    let expected = f64::from(DRAWS) * weight(k) / total;
                    (f64::from(seen[k]) - expected).powi(2) / expected
                })
                .sum();
            assert!(chi_square < 148.0, "s = {exponent}: chi-square {chi_square}");
        }
    }

    #[test]
    fn ranks_stay_in_range_at_the_edges() {
        for (ranks, exponent) in [(1, 0.99), (2, 1.0), (2_200_000, 0.8), (u64::from(u32::MAX), 1.1)]
        {
            let zipf = Zipf::new(ranks, exponent);
            let mut random = Random::new(3);
            for _ in 0..10_000 {
                let rank = zipf.sample(&mut random);
                assert!((1..=ranks).contains(&rank), "{rank} of {ranks}, s = {exponent}");
            }
        }
    }

    /// The share of the most frequent rank of a large population, against the exact sum.
    #[test]
    fn first_rank_of_a_million_has_its_share() {
        let zipf = Zipf::new(1_000_000, 0.99);
        let total: f64 = (1..=1_000_000_u32).map(|k| f64::from(k).powf(-0.99)).sum();
        let mut random = Random::new(4);
        let draws = 200_000;
        let first = (0..draws).filter(|_| zipf.sample(&mut random) == 1).count();
        let share = first as f64 / f64::from(draws);
        assert!((share * total - 1.0).abs() < 0.05, "share {share}, exact {}", 1.0 / total);
    }
}
