//! Seeded randomness: the only source of chance in a simulation.
//!
//! Knows no fault and no plan. The same seed gives the same numbers for ever and on every machine, because a
//! failing seed has to fail again on somebody else's.

/// A small generator: SplitMix64 (Steele, Lea and Flood, 2014), whose state is one counter.
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// Scrambles 64 bits so that neighbours become strangers.
pub fn mix(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The generator of `seed`; `stream` tells apart the users of one seed, so that one drawing more does not
    /// change what the others see.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed).wrapping_add(mix(stream ^ 0x9e37_79b9_7f4a_7c15)))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range has no number");
        match (high - low).checked_add(1) {
            Some(span) => low + self.bits() % span,
            None => self.bits(),
        }
    }

    /// Whether something happens that happens `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.bits() % 1000 < per_mille
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let last = choices.len() as u64 - 1;
        choices[usize::try_from(self.between(0, last)).expect("an index fits")]
    }

    /// A number from `low` to `high` whose logarithm is spread evenly: mostly small, sometimes large.
    pub fn spread(&mut self, low: u64, high: u64) -> u64 {
        let doublings = (high / low.max(1)).max(1).ilog2();
        let scale = self.between(0, u64::from(doublings));
        self.between(low, (low.max(1) << scale).saturating_mul(2).min(high))
    }

    /// 16 random bytes.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.bits().to_le_bytes());
        bytes[8..].copy_from_slice(&self.bits().to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_stream_give_the_same_numbers() {
        let draw = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            (0..8).map(|_| rng.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn ranges_are_kept() {
        let mut rng = Rng::new(7, 7);
        for _ in 0..1000 {
            assert!((3..=5).contains(&rng.between(3, 5)));
            assert!((3..=5000).contains(&rng.spread(3, 5000)));
        }
        assert_eq!(rng.between(9, 9), 9);
        assert!(!rng.chance(0) && rng.chance(1000));
    }
}
