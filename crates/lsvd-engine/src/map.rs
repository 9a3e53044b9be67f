//! The extent map: where each block of the durable prefix is stored.
//!
//! Knows locations as (object, ordinal), never as byte offsets, so that what happens inside an object stays below it.
//! Its inside may change: everything goes through the methods here. A block without a mapping is a hole.

use std::collections::BTreeMap;

use lsvd_format::{BlockIndex, BlockOrdinal, Extent, ObjectFormat, ObjectIdentity, SequenceNumber};

use crate::interval::{IntervalMap, Run};

/// Index of an object in the [`ObjectTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectIndex(pub u32);

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
}

impl ExtentMap {
    /// Maps a run to consecutive blocks of an object.
    pub fn insert(&mut self, extent: Extent, mapping: Mapping) {
        self.runs.insert(extent, mapping);
    }

    /// Makes a run a hole.
    pub fn remove(&mut self, extent: Extent) {
        self.runs.remove(extent);
    }

    /// The mapping of one block; `None` is a hole.
    pub fn get(&self, block: BlockIndex) -> Option<Mapping> {
        self.runs.get(block)
    }

    /// The mapped runs within `extent`, cut to it, in order; what lies between them are holes.
    pub fn overlapping(&self, extent: Extent) -> impl Iterator<Item = (Extent, Mapping)> + '_ {
        self.runs.overlapping(extent)
    }

    /// Records held, which is what the map costs.
    pub fn extents(&self) -> usize {
        self.runs.len()
    }
}

/// What reading a block of an object needs to know of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRecord {
    /// Which object; checksums are seeded with it. One of format 1 does not say: its epoch and writer are those of the
    /// last mark before it, or zeroes.
    pub identity: ObjectIdentity,
    /// How its payload is written.
    pub format: ObjectFormat,
    /// Where its payload begins, in bytes.
    pub header_bytes: u64,
    /// Blocks in its payload.
    pub payload_blocks: u64,
}

/// The objects that the map points into.
#[derive(Clone, Debug, Default)]
pub struct ObjectTable {
    records: Vec<ObjectRecord>,
    by_number: BTreeMap<SequenceNumber, ObjectIndex>,
}

impl ObjectTable {
    /// Adds an object.
    pub fn push(&mut self, record: ObjectRecord) -> ObjectIndex {
        let index = u32::try_from(self.records.len()).expect("fewer than 2^32 objects");
        self.records.push(record);
        self.by_number.insert(record.identity.number, ObjectIndex(index));
        ObjectIndex(index)
    }

    /// An object that was added.
    pub fn get(&self, index: ObjectIndex) -> &ObjectRecord {
        &self.records[index.0 as usize]
    }

    /// The object with a number.
    pub fn find(&self, number: SequenceNumber) -> Option<ObjectIndex> {
        self.by_number.get(&number).copied()
    }
}
