//! What is compared: maps from runs of blocks to places in objects.
//!
//! The others keep as little for a run as they can: a run's place is said relative to its address, so that it does not
//! change where a run is cut.

use std::collections::BTreeMap;

use lsvd_engine::{ExtentMap, Location, Mapping, ObjectIndex};
use lsvd_format::{BlockIndex, BlockOrdinal, Extent};
use rangemap::RangeMap;

/// Blocks of an object of the default size.
const OBJECT_BLOCKS: u64 = 2048;

pub trait Subject: Default {
    const NAME: &'static str;

    /// Maps a run to the `nth` and the following blocks of the log. It does not cross objects.
    fn write(&mut self, start: u64, count: u64, nth: u64);

    /// Object and ordinal of a block.
    fn find(&self, block: u64) -> Option<(u32, u32)>;

    /// How many pieces are in a range.
    fn scan(&self, start: u64, count: u64) -> usize;

    fn extents(&self) -> usize;
}

fn place(nth: u64) -> (u32, u32) {
    ((nth / OBJECT_BLOCKS) as u32, (nth % OBJECT_BLOCKS) as u32)
}

impl Subject for ExtentMap {
    const NAME: &'static str = "lsvd";

    fn write(&mut self, start: u64, count: u64, nth: u64) {
        let (object, ordinal) = place(nth);
        let location = Location { object: ObjectIndex(object), ordinal: BlockOrdinal(ordinal) };
        self.insert(Extent::new(start, count), Mapping::Stored(location), |_, _| {});
    }

    fn find(&self, block: u64) -> Option<(u32, u32)> {
        match self.get(BlockIndex(block))? {
            Mapping::Stored(location) => Some((location.object.0, location.ordinal.0)),
            Mapping::Zero | Mapping::Lost => None,
        }
    }

    fn scan(&self, start: u64, count: u64) -> usize {
        self.overlapping(Extent::new(start, count)).count()
    }

    fn extents(&self) -> usize {
        Self::extents(self)
    }
}

/// Object, and the ordinal of block 0 if it were in the same run.
type Origin = (u32, u32);

fn origin(start: u64, nth: u64) -> Origin {
    let (object, ordinal) = place(nth);
    (object, ordinal.wrapping_sub(start as u32))
}

/// Runs by their first block: how many blocks, and where.
#[derive(Default)]
pub struct RunsInBTree(BTreeMap<u64, (u32, Origin)>);

impl Subject for RunsInBTree {
    const NAME: &'static str = "BTreeMap";

    fn write(&mut self, start: u64, count: u64, nth: u64) {
        let origin = origin(start, nth);
        let (mut start, mut end) = (start, start + count);
        if let Some((&at, run)) = self.0.range_mut(..start).next_back() {
            let (run_end, run_origin) = (at + u64::from(run.0), run.1);
            if run_end >= start {
                if run_origin == origin {
                    (start, end) = (at, end.max(run_end));
                } else {
                    run.0 = (start - at) as u32;
                    if run_end > end {
                        self.0.insert(end, ((run_end - end) as u32, run_origin));
                    }
                }
            }
        }
        while let Some((&at, &(run_count, run_origin))) = self.0.range(start..=end).next() {
            let run_end = at + u64::from(run_count);
            if run_origin == origin {
                end = end.max(run_end);
            } else if at == end {
                break;
            }
            self.0.remove(&at);
            if run_origin != origin && run_end > end {
                self.0.insert(end, ((run_end - end) as u32, run_origin));
                break;
            }
        }
        self.0.insert(start, ((end - start) as u32, origin));
    }

    fn find(&self, block: u64) -> Option<(u32, u32)> {
        let (at, (count, (object, ordinal))) = self.0.range(..=block).next_back()?;
        (at + u64::from(*count) > block).then(|| (*object, ordinal.wrapping_add(block as u32)))
    }

    fn scan(&self, start: u64, count: u64) -> usize {
        let before = self.0.range(..start).next_back();
        let crosses = before.is_some_and(|(at, (count, _))| at + u64::from(*count) > start);
        self.0.range(start..start + count).count() + usize::from(crosses)
    }

    fn extents(&self) -> usize {
        self.0.len()
    }
}

/// The rangemap crate's map, which joins neighbours of equal value.
#[derive(Default)]
pub struct RunsInRangeMap(RangeMap<u64, Origin>);

impl Subject for RunsInRangeMap {
    const NAME: &'static str = "rangemap";

    fn write(&mut self, start: u64, count: u64, nth: u64) {
        self.0.insert(start..start + count, origin(start, nth));
    }

    fn find(&self, block: u64) -> Option<(u32, u32)> {
        self.0.get(&block).map(|(object, ordinal)| (*object, ordinal.wrapping_add(block as u32)))
    }

    fn scan(&self, start: u64, count: u64) -> usize {
        self.0.overlapping(start..start + count).count()
    }

    fn extents(&self) -> usize {
        self.0.len()
    }
}
