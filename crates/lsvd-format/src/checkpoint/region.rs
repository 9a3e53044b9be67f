//! One region of the map, as a row of runs.
//!
//! Knows not which objects the slots name: whoever applies a region holds its runs against the root's object table.
//! Invariants: 1. runs are in order, hold a block each and lie within the region; 2. a run of stored blocks ends at an
//! ordinal that a payload can have; 3. the bytes end with the last run.

#[cfg(test)]
mod tests;

use super::{PartId, REGION_BLOCKS, REGIONS_MAX, RegionIndex, Slot};
use crate::varint::{Reader, put_varint};
use crate::wire::{len_bytes, put, u32_at};
use crate::{BlockOrdinal, DecodeError, Extent, VolumeId};

/// Bytes of a region without runs.
pub const REGION_BYTES_MIN: u64 = 4;
/// Bytes of the longest region: each block a run of its own, with the highest slot and ordinal.
pub const REGION_BYTES_MAX: u64 = 4 + REGION_BLOCKS * 12;

const CHECKSUM_LEN: usize = 4;
/// Stands for lost blocks, where else there is 0 or a slot, which has 32 bits: whoever does not know it finds damage.
const LOST: u64 = (1 << 32) + 1;

/// Blocks of a region that lie one after the other in one place. Blocks between two runs lie nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionRun {
    /// The blocks, counted from the volume's start.
    pub extent: Extent,
    /// Where they lie.
    pub content: RunContent,
}

/// Where the blocks of a run lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunContent {
    /// Nowhere, but they stay allocated: they read as zeroes.
    Zero,
    /// In the payload of a log object.
    Stored {
        /// The object.
        slot: Slot,
        /// Where the run's first block lies in its payload; the others follow.
        ordinal: BlockOrdinal,
    },
    /// Nobody knows where: what said so was damaged, and what was written since says nothing of them.
    Lost,
}

/// Appends the bytes of a region of this volume, as they stand in this part.
///
/// # Panics
/// If the runs break an invariant of this module, or part or region are out of range.
pub fn encode_region(
    volume: VolumeId,
    part: PartId,
    region: RegionIndex,
    runs: impl IntoIterator<Item = RegionRun>,
    out: &mut Vec<u8>,
) {
    let refuse = |reason: String| panic!("a region that no reader would take: {reason}");
    part.check().and_then(|()| check_region(region)).unwrap_or_else(refuse);
    let start = out.len();
    out.extend_from_slice(&[0; CHECKSUM_LEN]);
    let mut end = region.extent().start.0;
    for run in runs {
        check_run(region, end, run).unwrap_or_else(refuse);
        put_varint(out, run.extent.start.0 - end);
        put_varint(out, run.extent.count.0);
        match run.content {
            RunContent::Zero => put_varint(out, 0),
            RunContent::Lost => put_varint(out, LOST),
            RunContent::Stored { slot, ordinal } => {
                put_varint(out, u64::from(slot.0) + 1);
                put_varint(out, u64::from(ordinal.0));
            }
        }
        end = run.extent.end().0;
    }
    let checksum = checksum(volume, part, region, &out[start + CHECKSUM_LEN..]);
    put(out, start, &checksum.to_le_bytes());
}

/// Reads a region of this volume from all of its bytes in this part.
///
/// # Errors
/// [`DecodeError::Short`] if not even the checksum is there, else corrupt: damaged, cut off, or another region. Offsets
/// count from the region's first byte.
pub fn decode_region(
    volume: VolumeId,
    part: PartId,
    region: RegionIndex,
    bytes: &[u8],
) -> Result<Vec<RegionRun>, DecodeError> {
    if bytes.len() < CHECKSUM_LEN {
        return Err(DecodeError::Short { have_bytes: len_bytes(bytes), need_bytes: REGION_BYTES_MIN });
    }
    check_region(region).map_err(|reason| DecodeError::corrupt(0, reason))?;
    let (stored, computed) = (u32_at(bytes, 0), checksum(volume, part, region, &bytes[CHECKSUM_LEN..]));
    if stored != computed {
        let reason = format!("region {region} has checksum {computed:08x}, not {stored:08x}");
        return Err(DecodeError::corrupt(0, reason));
    }
    let mut reader = Reader::new(bytes, CHECKSUM_LEN);
    let mut runs = Vec::new();
    let mut end = region.extent().start.0;
    while !reader.is_at_end() {
        let run = decode_run(&mut reader, end)?;
        check_run(region, end, run).map_err(|reason| reader.corrupt(reason))?;
        end = run.extent.end().0;
        runs.push(run);
    }
    Ok(runs)
}

/// The run that follows block `end`.
fn decode_run(reader: &mut Reader<'_>, end: u64) -> Result<RegionRun, DecodeError> {
    let extent = Extent::new(reader.above(end)?, reader.varint()?);
    let content = match reader.varint()? {
        0 => RunContent::Zero,
        LOST => RunContent::Lost,
        above => {
            let slot = u32::try_from(above - 1)
                .map_err(|_| reader.corrupt(format!("slot {} does not fit 32 bits", above - 1)))?;
            RunContent::Stored { slot: Slot(slot), ordinal: BlockOrdinal(reader.varint_u32()?) }
        }
    };
    Ok(RegionRun { extent, content })
}

fn check_region(region: RegionIndex) -> Result<(), String> {
    if u64::from(region.0) >= REGIONS_MAX {
        return Err(format!("region {region} is beyond any volume's end"));
    }
    Ok(())
}

/// The invariants of a run whose predecessor ends at block `end`, for both directions.
fn check_run(region: RegionIndex, end: u64, run: RegionRun) -> Result<(), String> {
    let (start, count) = (run.extent.start.0, run.extent.count.0);
    if count == 0 {
        return Err(format!("a run of no blocks at block {start}"));
    }
    if start < end {
        return Err(format!("a run from block {start}, where the one before ends at block {end}"));
    }
    if start.checked_add(count).is_none_or(|end| end > region.extent().end().0) {
        return Err(format!("a run of {count} blocks from block {start} reaches beyond region {region}"));
    }
    match run.content {
        RunContent::Stored { ordinal, .. } if u64::from(ordinal.0) + count > u64::from(u32::MAX) => {
            Err(format!("a run from ordinal {}, beyond any object's end", ordinal.0))
        }
        _ => Ok(()),
    }
}

fn checksum(volume: VolumeId, part: PartId, region: RegionIndex, runs: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(part.seed(volume), &region.0.to_le_bytes()), runs)
}
