//! Checkpoints: the extent map as of one log object, region by region, and the root that names the regions.
//!
//! - [`encode_region`]: the runs of one region. - [`Root`]: what opening has to know. - [`PartHead`]: what an object
//!   of `checkpoint/` begins with.
//!
//! An object of `checkpoint/`, a **part**, is its head, regions, and at its end perhaps a root. Knows neither the map
//! nor which checkpoint counts: the superblock names them. Invariants:
//! 1. every checksum is seeded with, or covers, volume and part: what is read from another place is noticed;
//! 2. what is encoded can be decoded: both directions ask the same checks, and every value has one encoding.

mod part;
mod region;
mod root;

pub use part::{PART_BYTES_MAX, PART_HEAD_BYTES, PART_MAGIC, PartHead, decode_part_head, encode_part_head};
pub use region::{REGION_BYTES_MAX, REGION_BYTES_MIN, RegionRun, RunContent, decode_region, encode_region};
pub use root::{
    ContainedRecord, LastDataRecord, ROOT_HEAD_BYTES, ROOT_MAGIC, RegionPlace, Root, RootObject, RootParent,
    RootPart, SkippedRange, decode_root, encode_root,
};

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    BLOCK_BYTES, BlockIndex, Epoch, Extent, NUMBER_MAX, SequenceNumber, VOLUME_BYTES_MAX, VolumeId, WriterId,
};

/// Blocks of a region, 64 MiB: what is stored and loaded at once.
pub const REGION_BLOCKS: u64 = 16_384;
/// Regions of the largest volume.
const REGIONS_MAX: u64 = VOLUME_BYTES_MAX / BLOCK_BYTES / REGION_BLOCKS;

/// The log object that a checkpoint is as of, by number and identity.
///
/// A checkpoint as of `n` is written when every object up to `n` is durable, and says whose `n` that was (rule 8):
/// a reader that finds another object under that number does not use the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStamp {
    /// The last object that the map contains.
    pub as_of: SequenceNumber,
    /// The epoch of that object.
    pub epoch: Epoch,
    /// The writer of that object.
    pub writer: WriterId,
}

/// One object in `checkpoint/`: [`names::checkpoint_part`](crate::names::checkpoint_part) is its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartId {
    /// What the checkpoint that it was written for is as of.
    pub as_of: SequenceNumber,
    /// The opening that wrote it.
    pub epoch: Epoch,
    /// Counts the parts that this opening wrote for this number: a second try has other names.
    pub serial: u32,
}

/// Index of a region of the volume, from 0; below 2³⁰.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionIndex(pub u32);

/// A place in the object table of a checkpoint: an object keeps it from its first checkpoint to its deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl PartId {
    /// Whether the values are possible ones.
    pub(crate) fn check(self) -> Result<(), String> {
        let numbers = 1..=NUMBER_MAX;
        if !numbers.contains(&self.as_of.0) {
            return Err(format!("a checkpoint as of {}, which is out of range", self.as_of));
        }
        if !numbers.contains(&self.epoch.0) {
            return Err(format!("epoch {} of a checkpoint is out of range", self.epoch));
        }
        Ok(())
    }

    /// What seeds the checksum of anything that lies in this part.
    fn seed(self, volume: VolumeId) -> u32 {
        let crc = crc32c::crc32c(&volume.0);
        let crc = crc32c::crc32c_append(crc, &self.as_of.0.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &self.epoch.0.to_le_bytes());
        crc32c::crc32c_append(crc, &self.serial.to_le_bytes())
    }
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}-{:08x}", self.as_of.0, self.epoch.0, self.serial)
    }
}

impl RegionIndex {
    /// The region of a block.
    ///
    /// # Panics
    /// If no volume has such a block.
    pub fn of(block: BlockIndex) -> Self {
        Self(u32::try_from(block.0 / REGION_BLOCKS).expect("a block is below VOLUME_BYTES_MAX"))
    }

    /// The region's blocks.
    pub fn extent(self) -> Extent {
        Extent::new(u64::from(self.0) * REGION_BLOCKS, REGION_BLOCKS)
    }
}

impl fmt::Display for RegionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 8: number and identity, as JSON within a superblock.
    #[test]
    fn a_stamp_is_a_number_and_an_identity() {
        let stamp =
            CheckpointStamp { as_of: SequenceNumber(70), epoch: Epoch(2), writer: WriterId([0xab; 16]) };
        let text = r#"{"as_of":70,"epoch":2,"writer":"abababababababababababababababab"}"#;
        assert_eq!(serde_json::to_string(&stamp).unwrap(), text);
        assert_eq!(serde_json::from_str::<CheckpointStamp>(text).unwrap(), stamp);
    }

    #[test]
    fn every_block_has_one_region() {
        let last = VOLUME_BYTES_MAX / BLOCK_BYTES - 1;
        for (block, region) in [(0, 0), (16_383, 0), (16_384, 1), (last, (1 << 30) - 1)] {
            assert_eq!(RegionIndex::of(BlockIndex(block)), RegionIndex(region));
            assert!(RegionIndex(region).extent().overlaps(Extent::new(block, 1)));
        }
        assert_eq!(u64::from(RegionIndex::of(BlockIndex(last)).0) + 1, REGIONS_MAX);
        assert_eq!(RegionIndex(u32::MAX).extent().count.0, REGION_BLOCKS, "and no index overflows");
    }
}
