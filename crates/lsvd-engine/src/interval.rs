//! A map from runs of blocks to values, in which the newest insertion wins.
//!
//! Knows nothing of what the values mean: a [`Run`] can be cut and may continue another. Invariant: runs are not
//! empty and do not overlap.

use std::collections::BTreeMap;
use std::ops::Bound;

use lsvd_format::{BlockIndex, Extent};

/// A value that belongs to a run of blocks and can be cut with it.
pub trait Run: Clone {
    /// The value of `count` blocks from the `from`-th of a run that has this value.
    fn part(&self, from: u64, count: u64) -> Self;

    /// Whether a run of `count` blocks with this value and a run of `next` right behind it are one run.
    fn continues(&self, count: u64, next: &Self) -> bool;
}

/// Runs of blocks with their values, ordered by address.
#[derive(Clone, Debug)]
pub struct IntervalMap<V> {
    runs: BTreeMap<u64, (u64, V)>,
}

impl<V> Default for IntervalMap<V> {
    fn default() -> Self {
        Self { runs: BTreeMap::new() }
    }
}

impl<V: Run> IntervalMap<V> {
    /// Number of runs.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether no block has a value.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Gives `extent` the value, whatever it had before.
    pub fn insert(&mut self, extent: Extent, value: V) {
        if extent.is_empty() {
            return;
        }
        self.remove(extent);
        let (mut start, mut count, mut value) = (extent.start.0, extent.count.0, value);
        if let Some((&before, (before_count, before_value))) = self.runs.range(..start).next_back()
            && before + before_count == start
            && before_value.continues(*before_count, &value)
        {
            count += before_count;
            value = before_value.clone();
            start = before;
        }
        if let Some((next_count, next_value)) = self.runs.get(&(start + count))
            && value.continues(count, next_value)
        {
            let next_count = *next_count;
            self.runs.remove(&(start + count));
            count += next_count;
        }
        self.runs.insert(start, (count, value));
    }

    /// Takes the value from every block of `extent`.
    pub fn remove(&mut self, extent: Extent) {
        let (start, end) = (extent.start.0, extent.end().0);
        if let Some((&before, (count, value))) = self.runs.range_mut(..start).next_back()
            && before + *count > start
        {
            let before_end = before + *count;
            let right = (before_end > end).then(|| value.part(end - before, before_end - end));
            *value = value.part(0, start - before);
            *count = start - before;
            if let Some(right) = right {
                self.runs.insert(end, (before_end - end, right));
                return;
            }
        }
        while let Some((&at, _)) = self.runs.range(start..end).next() {
            let (count, value) = self.runs.remove(&at).expect("found just above");
            if at + count > end {
                self.runs.insert(end, (at + count - end, value.part(end - at, at + count - end)));
            }
        }
    }

    /// Takes away the whole runs that begin in `extent` and of which `leaves` is true.
    pub fn remove_runs_if(&mut self, extent: Extent, mut leaves: impl FnMut(&V) -> bool) {
        let end = extent.end().0;
        let mut from = extent.start.0;
        while let Some((&at, (count, value))) = self.runs.range(from.min(end)..end).next() {
            from = at + count;
            if leaves(value) {
                self.runs.remove(&at);
            }
        }
    }

    /// The runs within `extent`, cut to it, in order of address.
    pub fn overlapping(&self, extent: Extent) -> impl Iterator<Item = (Extent, V)> + '_ {
        let (start, end) = (extent.start.0, extent.end().0);
        let first = self
            .runs
            .range(..=start)
            .next_back()
            .filter(|(at, (count, _))| **at + count > start)
            .map_or(start, |(at, _)| *at);
        // An empty extent has start == end, and a run may begin before it: nothing is asked for then.
        let bounds = (Bound::Included(first.min(end)), Bound::Excluded(end));
        self.runs.range(bounds).filter(move |_| start < end).map(move |(&at, (count, value))| {
            let from = at.max(start);
            let count = (at + count).min(end) - from;
            (Extent::new(from, count), value.part(from - at, count))
        })
    }

    /// All runs, in order of address.
    pub fn iter(&self) -> impl Iterator<Item = (Extent, &V)> + '_ {
        self.runs.iter().map(|(&at, (count, value))| (Extent::new(at, *count), value))
    }

    /// The value of one block.
    pub fn get(&self, block: BlockIndex) -> Option<V> {
        self.overlapping(Extent::new(block.0, 1)).next().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A run whose value counts up by one a block, as locations do.
    #[derive(Clone, Debug, PartialEq)]
    struct Counting(u64);

    impl Run for Counting {
        fn part(&self, from: u64, _count: u64) -> Self {
            Self(self.0 + from)
        }

        fn continues(&self, count: u64, next: &Self) -> bool {
            self.0 + count == next.0
        }
    }

    proptest! {
        /// Every block has what was put there last, runs never overlap, and what continues is one run.
        #[test]
        fn equals_an_array(ops in prop::collection::vec((0u64..64, 1u64..16, prop::option::of(0u64..200)), 0..60)) {
            let mut map = IntervalMap::default();
            let mut model = [None; 80];
            for (start, count, value) in ops {
                let extent = Extent::new(start, count);
                match value {
                    Some(value) => map.insert(extent, Counting(value)),
                    None => map.remove(extent),
                }
                for block in 0..count {
                    model[usize::try_from(start + block).unwrap()] = value.map(|value| value + block);
                }
            }
            for (block, value) in model.iter().enumerate() {
                let got = map.get(BlockIndex(block as u64)).map(|value| value.0);
                prop_assert_eq!(got, *value, "block {}", block);
            }
            let mut end = 0;
            for (extent, _) in map.iter() {
                prop_assert!(extent.start.0 >= end && !extent.is_empty());
                end = extent.end().0;
            }
            for start in 0..80 {
                for count in [0, 1, 7] {
                    let extent = Extent::new(start, count);
                    let blocks: u64 = map.overlapping(extent).map(|(part, _)| part.count.0).sum();
                    let expected = model.iter().skip(start as usize).take(count as usize).flatten().count();
                    prop_assert_eq!(blocks, expected as u64);
                }
            }
        }
    }
}
