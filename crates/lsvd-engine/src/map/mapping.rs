//! What a block is mapped to, and how that goes on in the blocks behind it.
//!
//! Knows no addresses of the volume.

use lsvd_format::BlockOrdinal;

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
    /// Unknown: what said where they are stored is lost.
    Lost,
}

impl Mapping {
    /// The mapping of the block so many behind the first. A payload has at most 2^32 blocks, so nothing wraps.
    #[inline]
    pub(super) fn after(self, blocks: u32) -> Self {
        match self {
            Self::Stored(Location { object, ordinal }) => {
                Self::Stored(Location { object, ordinal: BlockOrdinal(ordinal.0.wrapping_add(blocks)) })
            }
            Self::Zero | Self::Lost => self,
        }
    }

    /// Whether `count` blocks with this mapping and a run of `next` right behind them are one run.
    #[inline]
    pub(super) fn continues(self, count: u64, next: Self) -> bool {
        match (self, next) {
            (Self::Stored(this), Self::Stored(next)) => {
                this.object == next.object && u64::from(this.ordinal.0) + count == u64::from(next.ordinal.0)
            }
            (Self::Zero, Self::Zero) | (Self::Lost, Self::Lost) => true,
            _ => false,
        }
    }
}

/// A piece of a run, at a position in its leaf or region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub start: u32,
    pub count: u32,
    pub mapping: Mapping,
}

impl Piece {
    #[inline]
    pub fn end(&self) -> u32 {
        self.start + self.count
    }

    #[inline]
    pub fn is_continued_by(&self, next: &Self) -> bool {
        self.end() == next.start && self.mapping.continues(u64::from(self.count), next.mapping)
    }
}
