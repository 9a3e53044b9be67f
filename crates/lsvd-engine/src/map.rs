//! The extent map: where each block of the durable prefix is stored.
//!
//! Knows locations as (object, ordinal), never as byte offsets, so that what happens inside an object stays below it.
//! A block without a mapping is a hole. The map is cut into regions, which may be absent: stored in a checkpoint, and not
//! in memory. Invariants: nothing is said or changed of an absent region; a region that was changed is dirty until it is
//! marked clean, and a dirty one never leaves memory.

use std::collections::BTreeSet;

use lsvd_format::checkpoint::{REGION_BLOCKS, RegionIndex};
use lsvd_format::{BlockIndex, BlockOrdinal, Extent};

use crate::interval::{IntervalMap, Run};
use crate::objects::ObjectIndex;

/// Where a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The object.
    pub object: ObjectIndex,
    /// The block in its payload.
    pub ordinal: BlockOrdinal,
}

/// What the map says of a run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Stored, the first block there, the others behind it.
    Stored(Location),
    /// Zeroes that stay allocated.
    Zero,
}

impl Run for Mapping {
    fn part(&self, from: u64, _count: u64) -> Self {
        match *self {
            Self::Stored(Location { object, ordinal }) => {
                let from = u32::try_from(from).expect("a run of one object has at most 2^32 blocks");
                Self::Stored(Location { object, ordinal: BlockOrdinal(ordinal.0 + from) })
            }
            Self::Zero => Self::Zero,
        }
    }

    fn continues(&self, count: u64, next: &Self) -> bool {
        match (self, next) {
            (Self::Stored(this), Self::Stored(next)) => {
                this.object == next.object && u64::from(this.ordinal.0) + count == u64::from(next.ordinal.0)
            }
            (Self::Zero, Self::Zero) => true,
            _ => false,
        }
    }
}

/// The map of one volume as of one sequence number.
#[derive(Clone, Debug, Default)]
pub struct ExtentMap {
    runs: IntervalMap<Mapping>,
    absent: BTreeSet<RegionIndex>,
    dirty: BTreeSet<RegionIndex>,
    touched: BTreeSet<RegionIndex>,
}

/// What a record costs here, about.
const RUN_BYTES: u64 = 48;

impl ExtentMap {
    /// Maps a run to consecutive blocks of an object, or to zeroes; `displaced` hears of every stored run that this
    /// replaces.
    pub fn insert(&mut self, extent: Extent, mapping: Mapping, displaced: impl FnMut(ObjectIndex, u64)) {
        self.remove(extent, displaced);
        if !extent.is_empty() {
            self.dirty.extend(regions_of(extent));
            self.runs.insert(extent, mapping);
        }
    }

    /// Makes a run a hole; `displaced` hears of every stored run that was there.
    pub fn remove(&mut self, extent: Extent, mut displaced: impl FnMut(ObjectIndex, u64)) {
        assert_eq!(self.first_absent(extent), None, "an absent region is changed");
        for (run, mapping) in self.runs.overlapping(extent) {
            if let Mapping::Stored(location) = mapping {
                displaced(location.object, run.count.0);
            }
            self.dirty.extend(regions_of(run));
        }
        self.runs.remove(extent);
    }

    /// The mapping of one block; `None` is a hole.
    pub fn get(&self, block: BlockIndex) -> Option<Mapping> {
        assert!(!self.absent.contains(&RegionIndex::of(block)), "an absent region is asked");
        self.runs.get(block)
    }

    /// The mapped runs within `extent`, cut to it, in order; what lies between them are holes.
    pub fn overlapping(&self, extent: Extent) -> impl Iterator<Item = (Extent, Mapping)> + '_ {
        assert_eq!(self.first_absent(extent), None, "an absent region is asked");
        self.runs.overlapping(extent)
    }

    /// Records held in memory.
    pub fn extents(&self) -> usize {
        self.runs.len()
    }

    /// The first region of `extent` that is absent.
    pub fn first_absent(&self, extent: Extent) -> Option<RegionIndex> {
        if extent.is_empty() || self.absent.is_empty() {
            return None;
        }
        let (first, last) = (RegionIndex::of(extent.start), RegionIndex::of(BlockIndex(extent.end().0 - 1)));
        self.absent.range(first..=last).next().copied()
    }

    /// This region has content, which is in a checkpoint.
    pub fn set_absent(&mut self, region: RegionIndex) {
        self.absent.insert(region);
    }

    /// Brings an absent region into memory, clean.
    pub fn load(&mut self, region: RegionIndex, runs: impl IntoIterator<Item = (Extent, Mapping)>) {
        assert!(self.absent.remove(&region), "only an absent region is loaded");
        for (extent, mapping) in runs {
            self.runs.insert(extent, mapping);
        }
        self.touched.insert(region);
    }

    /// The region is used: others leave before it.
    pub fn touch(&mut self, region: RegionIndex) {
        self.touched.insert(region);
    }

    /// Lets clean regions of which `may_leave` is true leave memory until no more than this is held. Gives how many went.
    pub fn evict(&mut self, bytes_max: u64, mut may_leave: impl FnMut(RegionIndex) -> bool) -> u64 {
        let mut gone = 0;
        for round in 0..2 {
            let regions: Vec<RegionIndex> = self.regions().collect();
            for region in regions {
                if self.resident_bytes() <= bytes_max {
                    return gone;
                }
                let stays = self.absent.contains(&region) || self.is_dirty(region);
                if stays || (round == 0 && self.touched.remove(&region)) || !may_leave(region) {
                    continue;
                }
                self.runs.remove(region.extent());
                self.absent.insert(region);
                gone += 1;
            }
        }
        gone
    }

    /// Memory of the map in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.runs.len() as u64 * RUN_BYTES
    }

    /// The regions that changed since they were marked clean.
    pub fn dirty_regions(&self) -> impl Iterator<Item = RegionIndex> + '_ {
        self.dirty.iter().copied()
    }

    /// Whether a region changed since it was marked clean.
    pub fn is_dirty(&self, region: RegionIndex) -> bool {
        self.dirty.contains(&region)
    }

    /// A region's content is stored as it is now.
    pub fn mark_clean(&mut self, region: RegionIndex) {
        self.dirty.remove(&region);
    }

    /// What there is to store of a region.
    pub fn region_runs(&self, region: RegionIndex) -> impl Iterator<Item = (Extent, Mapping)> + '_ {
        self.overlapping(region.extent())
    }

    /// Regions with content, resident or absent.
    pub fn regions(&self) -> impl Iterator<Item = RegionIndex> + '_ {
        let resident = self.runs.iter().flat_map(|(extent, _)| regions_of(extent));
        let all: BTreeSet<RegionIndex> = resident.chain(self.absent.iter().copied()).collect();
        all.into_iter()
    }
}

/// The regions that a run lies in.
pub(crate) fn regions_of(extent: Extent) -> impl Iterator<Item = RegionIndex> {
    let first = RegionIndex::of(extent.start).0;
    let end = u32::try_from(extent.end().0.div_ceil(REGION_BLOCKS)).expect("a volume has fewer regions");
    (first..if extent.is_empty() { first } else { end }).map(RegionIndex)
}
