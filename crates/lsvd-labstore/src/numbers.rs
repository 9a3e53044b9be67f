//! Chance from a seed: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
//!
//! Knows no use of it. Not for secrets.

use std::sync::atomic::{AtomicU64, Ordering};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A sequence that many draw from at once.
#[derive(Debug)]
pub(crate) struct Numbers(AtomicU64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Numbers(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from `[0, 1)`.
    pub(crate) fn fraction(&self) -> f64 {
        // 53 bits are what a double holds.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From the normal distribution of mean 0 and variance 1 (Box and Muller, 1958).
    pub(crate) fn normal(&self) -> f64 {
        // Not 0, whose logarithm is infinite.
        let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.fraction()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_fractions_are_even() {
        let draw = |seed| {
            let numbers = Numbers::new(seed);
            (0..10_000).map(|_| numbers.fraction()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let drawn = draw(3);
        assert!(drawn.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = drawn.iter().sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
    }

    #[test]
    fn normal_numbers_are_normal() {
        let numbers = Numbers::new(1);
        let drawn: Vec<f64> = (0..20_000).map(|_| numbers.normal()).collect();
        let below = |limit: f64| drawn.iter().filter(|x| **x < limit).count();
        assert!((9_700..10_300).contains(&below(0.0)), "{}", below(0.0));
        // The 99th percentile is at 2.3263.
        assert!((19_730..19_870).contains(&below(2.3263)), "{}", below(2.3263));
    }
}
