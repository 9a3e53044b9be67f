//! A set of the blocks of a leaf, one bit each.
//!
//! Knows positions in the leaf alone.

use super::leaf::LEAF_BLOCKS;

const WORDS: usize = LEAF_BLOCKS as usize / 64;

/// Blocks of a leaf, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockSet([u64; WORDS]);

impl BlockSet {
    pub const EMPTY: Self = Self([0; WORDS]);
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    #[inline]
    pub fn contains(&self, block: u32) -> bool {
        self.0[block as usize / 64] >> (block % 64) & 1 == 1
    }

    #[inline]
    pub fn insert(&mut self, block: u32) {
        self.0[block as usize / 64] |= 1 << (block % 64);
    }

    #[inline]
    pub fn remove(&mut self, block: u32) {
        self.0[block as usize / 64] &= !(1 << (block % 64));
    }

    /// Puts all blocks of `from..to` in or out.
    #[inline]
    pub fn set(&mut self, from: u32, to: u32, contained: bool) {
        for word in from / 64..to.div_ceil(64) {
            let low = from.saturating_sub(word * 64);
            let high = (to - word * 64).min(64);
            if low == high {
                return;
            }
            let mask = u64::MAX >> (64 - (high - low)) << low;
            if contained {
                self.0[word as usize] |= mask;
            } else {
                self.0[word as usize] &= !mask;
            }
        }
    }

    /// How many of the blocks below `end` are contained.
    #[inline]
    pub fn count_below(&self, end: u32) -> usize {
        let (words, rest) = (end as usize / 64, end % 64);
        let whole: u32 = self.0[..words].iter().map(|word| word.count_ones()).sum();
        let part = if rest == 0 { 0 } else { (self.0[words] << (64 - rest)).count_ones() };
        (whole + part) as usize
    }

    /// The first contained block from `from` on, or the leaf's end.
    #[inline]
    pub fn next(&self, from: u32) -> u32 {
        self.search(from, 0)
    }

    /// The first block from `from` on that is not contained, or the leaf's end.
    #[inline]
    pub fn next_gap(&self, from: u32) -> u32 {
        self.search(from, u64::MAX)
    }

    #[inline]
    fn search(&self, from: u32, flip: u64) -> u32 {
        let mut mask = u64::MAX << (from % 64);
        for word in from / 64..LEAF_BLOCKS / 64 {
            let found = (self.0[word as usize] ^ flip) & mask;
            if found != 0 {
                return word * 64 + found.trailing_zeros();
            }
            mask = u64::MAX;
        }
        LEAF_BLOCKS
    }

    /// The last contained block up to and with `block`.
    #[inline]
    pub fn last(&self, block: u32) -> Option<u32> {
        let mut mask = u64::MAX >> (63 - block % 64);
        for word in (0..=block / 64).rev() {
            let found = self.0[word as usize] & mask;
            if found != 0 {
                return Some(word * 64 + found.ilog2());
            }
            mask = u64::MAX;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_an_array() {
        let edges = [0, 1, 2, 63, 64, 65, 127, 128, 200, LEAF_BLOCKS - 64, LEAF_BLOCKS - 1, LEAF_BLOCKS];
        for from in edges {
            for to in edges.into_iter().filter(|to| *to >= from) {
                for contained in [true, false] {
                    let mut set = if contained { BlockSet::EMPTY } else { BlockSet::ALL };
                    set.set(from, to, contained);
                    let model: Vec<bool> =
                        (0..LEAF_BLOCKS).map(|block| (from..to).contains(&block) == contained).collect();
                    for at in 0..LEAF_BLOCKS {
                        let (before, after) = model.split_at(at as usize);
                        let find = |what| {
                            after.iter().position(|is| *is == what).map_or(LEAF_BLOCKS, |n| at + n as u32)
                        };
                        assert_eq!(set.contains(at), after[0]);
                        assert_eq!(set.count_below(at), before.iter().filter(|is| **is).count());
                        assert_eq!(set.next(at), find(true));
                        assert_eq!(set.next_gap(at), find(false));
                        let last = model[..=at as usize].iter().rposition(|is| *is);
                        assert_eq!(set.last(at), last.map(|last| last as u32));
                    }
                    assert_eq!(set.count_below(LEAF_BLOCKS), model.iter().filter(|is| **is).count());
                }
            }
        }
    }
}
