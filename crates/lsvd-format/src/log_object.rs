//! A log object of format 2: header, entry table, and the payload as a run of frames.
//!
//! Knows one object at a time: not the log, not the map. Invariants:
//! 1. `payload_blocks == sum of count over data and relocation entries`, and fits `u32`;
//! 2. `object_bytes == header_bytes + payload_blocks × FRAME_BYTES`;
//! 3. a fence stands alone: one entry, no payload.

use std::ops::Range;

use bytes::Bytes;

use crate::{BlockOrdinal, DecodeError, Extent, JournalPosition, ObjectIdentity, SequenceNumber, VolumeId};

/// Bytes before each block's data: its checksum and its flags.
pub const FRAME_HEAD_BYTES: u64 = 8;
/// Bytes of a frame: its head and one block.
pub const FRAME_BYTES: u64 = FRAME_HEAD_BYTES + crate::BLOCK_BYTES;
/// Entries of one object at most.
pub const ENTRIES_MAX: usize = 65_536;

/// One change of the volume, in the order in which it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// These blocks' data follow in the payload.
    Data {
        /// The blocks.
        extent: Extent,
    },
    /// These blocks read as zeroes and stay allocated.
    Zero {
        /// The blocks.
        extent: Extent,
    },
    /// These blocks were discarded and read as zeroes.
    Trim {
        /// The blocks.
        extent: Extent,
    },
    /// These blocks' data follow in the payload, moved from `source`; applies to a block only if the map with all
    /// lower numbers applied still points at its source.
    Relocation {
        /// The blocks.
        extent: Extent,
        /// Where the first of them was.
        source: Source,
    },
    /// The log of the writers before ends here, and the next number is `next`.
    Fence {
        /// Number of the next object.
        next: SequenceNumber,
    },
}

/// Where a relocated run was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The volume whose log holds it.
    pub volume: VolumeId,
    /// The object.
    pub number: SequenceNumber,
    /// The run's first block in the object's payload.
    pub ordinal: BlockOrdinal,
}

/// What a log object says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who wrote it, and which it is.
    pub identity: ObjectIdentity,
    /// Wall-clock time of sealing, in milliseconds since 1970, by the writer's clock.
    pub sealed_unix_ms: u64,
    /// How much of which journal the log up to here contains.
    pub journal: Option<JournalPosition>,
    /// The changes, in order.
    pub entries: Vec<Entry>,
}

impl Header {
    /// Encoded length in bytes, which is also where the payload begins.
    pub fn header_bytes(&self) -> u64 {
        todo!()
    }

    /// Blocks in the payload.
    pub fn payload_blocks(&self) -> u64 {
        todo!()
    }

    /// Length of the whole object in bytes.
    pub fn object_bytes(&self) -> u64 {
        todo!()
    }

    /// Appends the header's bytes to `out`. The caller then appends the payload's frames with [`encode_frame`].
    ///
    /// # Panics
    /// If the header breaks an invariant of this module: the engine never builds such a one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }

    /// Reads a header from the first bytes of an object.
    ///
    /// # Errors
    /// [`DecodeError::Short`] says how many bytes to read and try again with; what is corrupt or newer is so.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        todo!()
    }
}

/// Byte range in the object of `count` frames from `first`.
pub fn frames_range(header_bytes: u64, first: BlockOrdinal, count: u32) -> Range<u64> {
    let start = header_bytes + u64::from(first.0) * FRAME_BYTES;
    start..start + u64::from(count) * FRAME_BYTES
}

/// Appends one block as a frame to `out`.
///
/// # Panics
/// If `block` is not one block long.
pub fn encode_frame(identity: &ObjectIdentity, ordinal: BlockOrdinal, block: &[u8], out: &mut Vec<u8>) {
    let _ = (identity, ordinal, block, out);
    todo!()
}

/// Verifies a run of whole frames that begins at `first`, and gives the blocks' data without the frames' heads.
///
/// # Errors
/// The offset in [`DecodeError::Corrupt`] counts from the start of `frames`.
pub fn decode_frames(
    identity: &ObjectIdentity,
    first: BlockOrdinal,
    frames: &[u8],
) -> Result<Bytes, DecodeError> {
    let _ = (identity, first, frames);
    todo!()
}
