//! Which form a region has, which does not show from outside.

use lsvd_format::BlockOrdinal;

use super::*;
use crate::Location;

fn stored(object: u32, ordinal: u32) -> Option<Mapping> {
    Some(Mapping::Stored(Location { object: ObjectIndex(object), ordinal: BlockOrdinal(ordinal) }))
}

struct Counted {
    region: Region,
    total: Cost,
}

impl Counted {
    fn new() -> Self {
        Self { region: Region::default(), total: Cost::default() }
    }

    fn update(&mut self, from: u32, to: u32, mapping: Option<Mapping>) {
        self.region.update(from, to, mapping, &mut |_, _| {}, &mut self.total);
        assert_eq!(self.total, self.region.cost(), "counted as it changes, and leaf by leaf");
    }

    fn is_list(&self) -> bool {
        matches!(self.region, Region::List(_))
    }

    /// How many leaves are wide, and how many have sets.
    fn leaves(&self) -> (usize, usize) {
        let Region::Leaves(leaves) = &self.region else { panic!("a list") };
        let all = leaves.leaves.iter();
        (all.clone().filter(|leaf| leaf.is_wide()).count(), all.filter(|leaf| leaf.has_sets()).count())
    }
}

#[test]
fn a_slot_and_a_leaf_are_small() {
    assert_eq!((size_of::<Run>(), size_of::<Region>(), size_of::<Leaf>()), (10, 24, 32));
}

/// A list up to 512 runs, leaves above, and a list again at 256.
#[test]
fn many_runs_are_leaves_and_few_a_list() {
    let mut counted = Counted::new();
    for nth in 0..512 {
        counted.update(nth * 32, nth * 32 + 1, stored(nth, 0));
        assert!(counted.is_list());
    }
    counted.update(7, 8, stored(1000, 0));
    assert_eq!(counted.leaves(), (0, 32));
    for left in (256..513).rev() {
        assert!(!counted.is_list());
        counted.update((left + 1) % 512 * 32, (left + 1) % 512 * 32 + 1, None);
    }
    assert!(counted.is_list());
    assert_eq!(counted.total.records, 256);
    assert_eq!(counted.region.get(7), stored(1000, 0));
    assert_eq!(counted.region.get(8 * 32), stored(8, 0));
    assert_eq!(counted.region.get(300 * 32), None);
}

/// What continues is one run, on either side, whether what was there before it was cut or not.
#[test]
fn what_continues_is_one_run() {
    for many in [0, 600] {
        let mut counted = Counted::new();
        for nth in 0..many {
            counted.update(1024 + nth * 2, 1025 + nth * 2, stored(nth + 2, 0));
        }
        assert_eq!(counted.is_list(), many == 0);
        let mut update = |from: u32, to: u32, mapping: bool, runs: usize| {
            counted.update(from, to, mapping.then(|| stored(1, from)).flatten());
            assert_eq!(counted.total.records - many as usize, runs, "{from}..{to}");
        };
        update(0, 100, true, 1);
        update(50, 51, false, 2);
        update(50, 51, true, 1);
        update(40, 60, true, 1);
        update(40, 60, false, 2);
        update(40, 45, true, 2);
        update(55, 60, true, 2);
        update(44, 56, true, 1);
        update(100, 110, true, 1);
        update(0, 100, false, 1);
        update(0, 100, true, 1);
        // Every block a run of its own, so that the leaf is full, and then the first two as one.
        for block in 0..512 {
            counted.update(block, block + 1, stored(9, 1000 - block));
        }
        let before = counted.total.records;
        counted.update(0, 1, stored(9, 998));
        assert_eq!(before - counted.total.records, 1);
        counted.update(2, 3, stored(9, 1000));
        assert_eq!(before - counted.total.records, 2);
    }
}

/// What leaves cut at their borders is one run again in a list.
#[test]
fn a_list_joins_what_leaves_cut() {
    let mut counted = Counted::new();
    counted.update(0, REGION_LEN, stored(1, 0));
    for nth in 0..512 {
        counted.update(nth * 2, nth * 2 + 1, Some(Mapping::Zero));
    }
    assert!(!counted.is_list());
    assert_eq!(counted.total.records, 1024 + 30);
    counted.update(0, 1024, stored(1, 0));
    assert!(counted.is_list());
    assert_eq!(counted.total.records, 1);
    assert_eq!(counted.region.get(REGION_LEN - 1), stored(1, REGION_LEN - 1));
}

/// A leaf of which every block is a run needs no sets, one that is a hole neither.
#[test]
fn full_and_empty_leaves_have_no_sets() {
    let mut counted = Counted::new();
    for block in 0..1024 {
        counted.update(block, block + 1, stored(block, 0));
    }
    assert_eq!(counted.leaves(), (0, 0));
    let full = counted.total;
    counted.update(5, 6, None);
    assert_eq!(counted.leaves(), (0, 1));
    counted.update(5, 6, stored(9000, 65_535));
    counted.update(5, 6, stored(9001, 7));
    assert_eq!((counted.leaves(), counted.total), ((0, 0), full));
    assert_eq!(counted.region.get(5), stored(9001, 7));
    counted.update(0, 512, None);
    counted.update(511, 512, None);
    assert_eq!((counted.leaves(), counted.total.records), ((0, 0), 512));
}

/// Ordinals above 16 bits make a leaf wide, also where only the rest of a run that is cut has them.
#[test]
fn what_does_not_fit_is_wide() {
    let mut counted = Counted::new();
    counted.update(0, 2000, stored(1, 65_000));
    assert!(counted.is_list());
    // The rest begins at ordinal 65,601.
    counted.update(600, 601, Some(Mapping::Zero));
    assert_eq!(counted.leaves(), (3, 4), "the first leaf alone has nothing above");
    assert_eq!(counted.region.get(1999), stored(1, 66_999));
    counted.update(600, 2000, stored(1, 100));
    assert!(counted.is_list());
}
