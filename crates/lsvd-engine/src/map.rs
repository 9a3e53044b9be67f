//! The extent map: where each block of the durable prefix is stored.
//!
//! Knows locations as (object, ordinal), never as byte offsets, so that what happens inside an object stays below it. A
//! block without a mapping is a hole. The map is made of regions of 64 MiB, the unit of checkpoints and of what leaves
//! memory; what a region costs follows from what is in it:
//!
//! - nothing for holes, 10 bytes for a run while a region has few of them (`region.rs`);
//! - 6 bytes for a run and a quarter of a byte for a block where they are many (`leaf.rs`), and 6 bytes for a block
//!   where every block is a run of its own.
//!
//! It does not know what a checkpoint is or where absent regions are: whoever asks for the mappings of one has to
//! [`load`](ExtentMap::load) it first, see [`first_absent`](ExtentMap::first_absent). To ask all the same breaks an
//! invariant of the engine, and panics.

use std::ops::Range;

use lsvd_format::checkpoint::{REGION_BLOCKS, RegionIndex};
use lsvd_format::{BLOCK_BYTES, BlockIndex, Extent, VOLUME_BYTES_MAX};

use crate::objects::ObjectIndex;

mod leaf;
mod mapping;
mod place;
mod region;
mod set;
mod sized;
mod table;

use mapping::Piece;
pub use mapping::{Location, Mapping};
use region::Region;
use table::{Group, Table, bit};

/// How regions lie on a volume.
trait Regions: Sized {
    /// Regions of the largest volume.
    const COUNT: u32 = 1 << 30;
    /// The last region of the largest volume.
    const LAST: RegionIndex = RegionIndex((1 << 30) - 1);

    /// The region behind it, if a volume has one.
    fn next(self) -> Option<Self>;

    /// The first and the last region of `at..end`; `None` if that is empty.
    fn range(at: u64, end: u64) -> Option<(Self, Self)>;

    /// The part of `at..end` that lies in this region, from its beginning.
    fn positions(self, at: u64, end: u64) -> Range<u32>;
}

impl Regions for RegionIndex {
    fn next(self) -> Option<Self> {
        (self < Self::LAST).then(|| Self(self.0 + 1))
    }

    #[inline]
    fn range(at: u64, end: u64) -> Option<(Self, Self)> {
        let last = end.checked_sub(1).filter(|last| *last >= at)?;
        Some((Self::of(BlockIndex(at)), Self::of(BlockIndex(last))))
    }

    #[inline]
    fn positions(self, at: u64, end: u64) -> Range<u32> {
        let first = self.extent().start.0;
        let position = |block: u64| {
            u32::try_from(block.saturating_sub(first).min(REGION_BLOCKS)).expect("a region is small")
        };
        position(at)..position(end)
    }
}

const _: () =
    assert!(<RegionIndex as Regions>::COUNT as u64 * REGION_BLOCKS * BLOCK_BYTES == VOLUME_BYTES_MAX);

/// What a part of the map takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    bytes: u64,
    records: usize,
}

impl Cost {
    /// A part of this has changed.
    #[inline]
    fn change(&mut self, before: Self, after: Self) {
        self.bytes = self.bytes + after.bytes - before.bytes;
        self.records = self.records + after.records - before.records;
    }
}

/// The map of one volume as of one sequence number.
#[derive(Debug, Default)]
pub struct ExtentMap {
    table: Table,
    /// Of all regions in memory, beside the table.
    cost: Cost,
    /// Where the search for a region to evict goes on.
    hand: RegionIndex,
}

/// Mappings.
impl ExtentMap {
    /// Maps a run, to consecutive blocks of an object or to zeroes. `displaced` is told of every stored run that this
    /// replaces, in pieces: which object, how many blocks.
    ///
    /// # Panics
    /// If a region of the extent is absent, or beyond the largest volume.
    pub fn insert(&mut self, extent: Extent, mapping: Mapping, mut displaced: impl FnMut(ObjectIndex, u64)) {
        let end = extent.end().0;
        let (mut at, mut mapping) = (extent.start.0, mapping);
        while at < end {
            let region = RegionIndex::of(BlockIndex(at));
            let blocks = region.positions(at, end);
            let count = blocks.end - blocks.start;
            let group = self.table.group_or_new(region);
            let content = group.region_mut(region);
            content.update(blocks.start, blocks.end, Some(mapping), &mut displaced, &mut self.cost);
            group.held |= bit(region);
            group.dirty |= bit(region);
            group.used |= bit(region);
            at += u64::from(count);
            mapping = mapping.after(count);
        }
    }

    /// Makes a run a hole. `displaced` is told of what was stored there, as in [`insert`](Self::insert). Takes no time
    /// for what are holes already.
    ///
    /// # Panics
    /// If a region of the extent is absent.
    pub fn remove(&mut self, extent: Extent, mut displaced: impl FnMut(ObjectIndex, u64)) {
        let end = extent.end().0;
        let mut at = extent.start.0;
        while let Some(region) = self.next_with_content(at, end) {
            let blocks = region.positions(at, end);
            at = region.extent().end().0;
            let group = self.table.group_or_new(region);
            let content = group.region_mut(region);
            if content.next(blocks.start, blocks.end).is_none() {
                continue;
            }
            content.update(blocks.start, blocks.end, None, &mut displaced, &mut self.cost);
            if content.is_empty() {
                group.held &= !bit(region);
            }
            group.dirty |= bit(region);
            group.used |= bit(region);
        }
    }

    /// The mapping of one block; `None` is a hole.
    ///
    /// # Panics
    /// If its region is absent.
    #[inline]
    pub fn get(&self, block: BlockIndex) -> Option<Mapping> {
        let region = RegionIndex::of(block);
        self.table.region(region)?.get(region.positions(block.0, block.0 + 1).start)
    }

    /// The mapped runs within `extent`, cut to it, in order; what lies between them are holes.
    ///
    /// # Panics
    /// If a region of the extent is absent, when the iteration comes to it.
    pub fn overlapping(&self, extent: Extent) -> impl Iterator<Item = (Extent, Mapping)> + '_ {
        let end = extent.end().0;
        let mut ahead = self.next_piece(extent.start.0, end);
        std::iter::from_fn(move || {
            let (mut run, mapping) = ahead.take()?;
            loop {
                ahead = self.next_piece(run.end().0, end);
                match &ahead {
                    Some((next, with))
                        if next.start == run.end() && mapping.continues(run.count.0, *with) =>
                    {
                        run.count.0 += next.count.0;
                    }
                    _ => return Some((run, mapping)),
                }
            }
        })
    }

    /// The first piece of a run in `at..end`. What continues in the next leaf or region is another piece.
    #[inline]
    fn next_piece(&self, mut at: u64, end: u64) -> Option<(Extent, Mapping)> {
        loop {
            let region = self.next_with_content(at, end)?;
            let blocks = region.positions(at, end);
            if let Some(piece) = self.table.region(region)?.next(blocks.start, blocks.end) {
                let start = region.extent().start.0 + u64::from(piece.start);
                return Some((Extent::new(start, u64::from(piece.count)), piece.mapping));
            }
            at = region.extent().end().0;
        }
    }

    #[inline]
    fn next_with_content(&self, at: u64, end: u64) -> Option<RegionIndex> {
        let (first, last) = RegionIndex::range(at, end)?;
        self.table.next(first, last, Group::with_content)
    }

    /// Records in memory. A run has one, and one more for each border of leaves or regions that it crosses, where
    /// there are leaves.
    pub fn extents(&self) -> usize {
        self.cost.records
    }
}

/// Which regions are in memory.
impl ExtentMap {
    /// The first region of `extent` that is absent. Takes no time for holes.
    #[inline]
    pub fn first_absent(&self, extent: Extent) -> Option<RegionIndex> {
        let (first, last) = RegionIndex::range(extent.start.0, extent.end().0)?;
        self.table.next(first, last, |group| group.absent)
    }

    /// Says that a region has content which is not in memory. It must be a hole until then, and not dirty.
    pub fn set_absent(&mut self, region: RegionIndex) {
        let group = self.table.group_or_new(region);
        assert!((group.held | group.dirty) & bit(region) == 0, "{region:?} has content of its own");
        group.absent |= bit(region);
        *group.region_mut(region) = Region::Absent;
    }

    /// Gives an absent region its content. It is clean then. What the runs say beyond the region is not for it.
    ///
    /// # Panics
    /// If the region is not absent.
    pub fn load(&mut self, region: RegionIndex, runs: impl IntoIterator<Item = (Extent, Mapping)>) {
        let group = self.table.group_or_new(region);
        assert!(group.absent & bit(region) != 0, "{region:?} is in memory");
        group.absent &= !bit(region);
        group.used |= bit(region);
        let content = group.region_mut(region);
        *content = Region::default();
        let whole = region.extent();
        for (extent, mapping) in runs {
            if extent.overlaps(whole) && extent.start >= whole.start {
                let blocks = region.positions(extent.start.0, extent.end().0);
                content.update(blocks.start, blocks.end, Some(mapping), &mut |_, _| {}, &mut self.cost);
            }
        }
        if !content.is_empty() {
            group.held |= bit(region);
        }
        self.table.forget_idle(region);
    }

    /// Makes an absent region a hole, unseen: what it held is not told to anybody.
    ///
    /// # Panics
    /// If the region is not absent.
    pub fn discard_absent(&mut self, region: RegionIndex) {
        let group = self.table.group_or_new(region);
        assert!(group.absent & bit(region) != 0, "{region:?} is in memory");
        group.absent &= !bit(region);
        group.dirty |= bit(region);
        group.used |= bit(region);
        *group.region_mut(region) = Region::default();
    }

    /// Says that a region is used, so that others are evicted before it.
    #[inline]
    pub fn touch(&mut self, region: RegionIndex) {
        if let Some(group) = self.table.group_mut(region) {
            group.used |= bit(region);
        }
    }

    /// Makes clean regions absent until the map takes no more than `bytes_max`, or none may leave. Those go first that
    /// were not used since the last search came by; `may_leave` has the last word. Returns how many went.
    pub fn evict(&mut self, bytes_max: u64, mut may_leave: impl FnMut(RegionIndex) -> bool) -> u64 {
        let mut evicted = 0;
        // The rest from the hand on, all of them, and once more what that left alone because it was in use.
        let mut rounds = 3;
        while self.resident_bytes() > bytes_max && rounds > 0 {
            let clean = |group: &Group| group.held & !group.dirty;
            let Some(region) = self.table.next(self.hand, RegionIndex::LAST, clean) else {
                self.hand = RegionIndex(0);
                rounds -= 1;
                continue;
            };
            self.hand = region.next().unwrap_or_default();
            let group = self.table.group_or_new(region);
            if group.used & bit(region) != 0 {
                group.used &= !bit(region);
            } else if may_leave(region) {
                let content = std::mem::replace(group.region_mut(region), Region::Absent);
                group.held &= !bit(region);
                group.absent |= bit(region);
                self.cost.change(content.cost(), Cost::default());
                evicted += 1;
            }
        }
        evicted
    }

    /// Memory of the map in bytes: tables, records and what its arrays have to spare; not what the allocator takes
    /// besides.
    pub fn resident_bytes(&self) -> u64 {
        self.index_bytes() + self.cost.bytes
    }

    /// Of these, what does not become less when regions are absent.
    pub fn index_bytes(&self) -> u64 {
        self.table.bytes()
    }
}

/// What a checkpoint has to store.
impl ExtentMap {
    /// The regions that were changed since they were last clean, in order.
    pub fn dirty_regions(&self) -> impl Iterator<Item = RegionIndex> + '_ {
        self.table.iter(|group| group.dirty)
    }

    /// Whether a region was changed since it was last clean.
    pub fn is_dirty(&self, region: RegionIndex) -> bool {
        self.table.group(region).is_some_and(|group| group.dirty & bit(region) != 0)
    }

    /// Says that a region is stored as it is.
    pub fn mark_clean(&mut self, region: RegionIndex) {
        if let Some(group) = self.table.group_mut(region) {
            group.dirty &= !bit(region);
            self.table.forget_idle(region);
        }
    }

    /// The mapped runs of a region, in order.
    ///
    /// # Panics
    /// If the region is absent.
    pub fn region_runs(&self, region: RegionIndex) -> impl Iterator<Item = (Extent, Mapping)> + '_ {
        self.overlapping(region.extent())
    }

    /// Whether a region is a hole altogether, and so nothing is to be stored of it.
    pub fn is_region_empty(&self, region: RegionIndex) -> bool {
        self.table.region(region).is_none_or(Region::is_empty)
    }

    /// The regions with content, in memory or absent, in order.
    pub fn regions(&self) -> impl Iterator<Item = RegionIndex> + '_ {
        self.table.iter(Group::with_content)
    }

    /// The first region from `from` on that has content, in memory or absent.
    pub fn next_region(&self, from: RegionIndex) -> Option<RegionIndex> {
        self.table.next(from, RegionIndex::LAST, Group::with_content)
    }
}
