//! A small repeatable source of random numbers, and bytes made from it.
//!
//! Not for secrets: content and delays of tests, repeatable from a seed (splitmix64, Steele, Lea and Flood 2014).

/// A seeded sequence.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    /// The sequence of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Fills `bytes`.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let mut a = [0; 20];
        let mut b = [0; 20];
        Numbers::new(1).fill(&mut a);
        Numbers::new(1).fill(&mut b);
        assert_eq!(a, b);
        Numbers::new(2).fill(&mut b);
        assert_ne!(a, b);
        assert!((0..100).all(|_| Numbers::new(3).below(7) < 7));
    }
}
