//! The entries of a log object: what they say, and their bytes in the header's table.
//!
//! Knows one entry at a time. Invariants: every extent holds a block, counts them in 32 bits and ends within
//! [`VOLUME_BYTES_MAX`]; a fence's next number is above its own; what is relocated is older than where it goes.

use crate::wire::{array, u32_at, u64_at};
use crate::{
    BLOCK_BYTES, BlockOrdinal, DecodeError, Extent, NUMBER_MAX, ObjectIdentity, SequenceNumber,
    VOLUME_BYTES_MAX, VolumeId,
};

/// Bytes of every entry but a relocation.
pub(super) const ENTRY_LEN: usize = 16;
/// Bytes of a relocation, which says its source too.
pub(super) const RELOCATION_LEN: usize = 48;

/// The first byte of an entry.
pub(super) mod kind {
    pub(in crate::log_object) const DATA: u8 = 1;
    pub(in crate::log_object) const ZERO: u8 = 2;
    pub(in crate::log_object) const TRIM: u8 = 3;
    pub(in crate::log_object) const RELOCATION: u8 = 4;
    pub(in crate::log_object) const FENCE: u8 = 5;
}

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

impl Entry {
    /// The blocks that the entry is about; none for a fence.
    pub fn extent(&self) -> Option<Extent> {
        match *self {
            Self::Data { extent }
            | Self::Zero { extent }
            | Self::Trim { extent }
            | Self::Relocation { extent, .. } => Some(extent),
            Self::Fence { .. } => None,
        }
    }

    /// Blocks of the payload that the entry takes.
    pub fn payload_blocks(&self) -> u64 {
        match *self {
            Self::Data { extent } | Self::Relocation { extent, .. } => extent.count.0,
            Self::Zero { .. } | Self::Trim { .. } | Self::Fence { .. } => 0,
        }
    }

    /// Bytes of the entry in the header.
    pub fn header_bytes(&self) -> u64 {
        match self {
            Self::Relocation { .. } => 48,
            _ => 16,
        }
    }

    /// The invariants that one entry of the object `identity` has to keep, for both directions.
    pub(super) fn check(&self, identity: &ObjectIdentity) -> Result<(), String> {
        if let Some(extent) = self.extent() {
            check_extent(extent)?;
        }
        match *self {
            Self::Data { .. } | Self::Zero { .. } | Self::Trim { .. } => Ok(()),
            Self::Relocation { extent, source } => check_source(extent, source, identity),
            Self::Fence { next } if next <= identity.number || next.0 > NUMBER_MAX => {
                Err(format!("a fence whose next number is {next}"))
            }
            Self::Fence { .. } => Ok(()),
        }
    }

    /// Appends the entry's bytes. [`Entry::check`] has bounded its counts.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, count, start) = match *self {
            Self::Data { extent } => (kind::DATA, extent.count.0, extent.start.0),
            Self::Zero { extent } => (kind::ZERO, extent.count.0, extent.start.0),
            Self::Trim { extent } => (kind::TRIM, extent.count.0, extent.start.0),
            Self::Relocation { extent, .. } => (kind::RELOCATION, extent.count.0, extent.start.0),
            Self::Fence { next } => (kind::FENCE, 0, next.0),
        };
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(&u32::try_from(count).expect("checked before encoding").to_le_bytes());
        out.extend_from_slice(&start.to_le_bytes());
        if let Self::Relocation { source, .. } = self {
            out.extend_from_slice(&source.volume.0);
            out.extend_from_slice(&source.number.0.to_le_bytes());
            out.extend_from_slice(&source.ordinal.0.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
        }
    }

    /// The entry at the start of `table`, which lies at `offset_bytes` of the header, and its length.
    pub(super) fn decode(table: &[u8], offset_bytes: u64) -> Result<(Self, usize), DecodeError> {
        let past_end = || DecodeError::corrupt(offset_bytes, "an entry beyond the header's end");
        let newer = |what: String| Err(DecodeError::Newer { what });
        if table.len() < ENTRY_LEN {
            return Err(past_end());
        }
        let (count, start) = (u64::from(u32_at(table, 4)), u64_at(table, 8));
        let extent = Extent::new(start, count);
        let (entry, entry_len) = match table[0] {
            kind::DATA => (Self::Data { extent }, ENTRY_LEN),
            kind::ZERO => (Self::Zero { extent }, ENTRY_LEN),
            kind::TRIM => (Self::Trim { extent }, ENTRY_LEN),
            kind::FENCE if count != 0 => {
                return Err(DecodeError::corrupt(offset_bytes, "a fence that counts blocks"));
            }
            kind::FENCE => (Self::Fence { next: SequenceNumber(start) }, ENTRY_LEN),
            kind::RELOCATION if table.len() < RELOCATION_LEN => return Err(past_end()),
            kind::RELOCATION => {
                let source = Source {
                    volume: VolumeId(array(table, 16)),
                    number: SequenceNumber(u64_at(table, 32)),
                    ordinal: BlockOrdinal(u32_at(table, 40)),
                };
                (Self::Relocation { extent, source }, RELOCATION_LEN)
            }
            unknown => return newer(format!("a log object with an entry of kind {unknown}")),
        };
        let reserved_last = if entry_len == RELOCATION_LEN { u32_at(table, 44) } else { 0 };
        if table[1..4] != [0; 3] || reserved_last != 0 {
            return newer(format!("a log object with flags on the entry at byte {offset_bytes}"));
        }
        Ok((entry, entry_len))
    }
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
fn check_extent(extent: Extent) -> Result<(), String> {
    let (start, count) = (extent.start.0, extent.count.0);
    if count == 0 {
        return Err("an entry of no blocks".to_owned());
    }
    if count > u64::from(u32::MAX) {
        return Err(format!("an entry of {count} blocks, which does not fit"));
    }
    if start.checked_add(count).is_none_or(|end| end > VOLUME_BYTES_MAX / BLOCK_BYTES) {
        return Err(format!("an entry for {count} blocks from block {start}, beyond any volume's end"));
    }
    Ok(())
}

fn check_source(extent: Extent, source: Source, identity: &ObjectIdentity) -> Result<(), String> {
    if !(1..=NUMBER_MAX).contains(&source.number.0) {
        return Err(format!("a relocation from number {}, which is out of range", source.number));
    }
    if source.volume == identity.volume && source.number >= identity.number {
        return Err(format!("a relocation from object {}, which is not older", source.number));
    }
    if u64::from(source.ordinal.0) + extent.count.0 > u64::from(u32::MAX) {
        return Err(format!("a relocation from ordinal {}, beyond any object's end", source.ordinal.0));
    }
    Ok(())
}
