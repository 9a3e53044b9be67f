//! Plans: where the bytes of a range come from.
//!
//! Looks at overlay and map, newest first; knows no store, no cache, no chunks.

use bytes::Bytes;
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::{BLOCK_BYTES, BlockIndex, BlockOrdinal, Extent};

use crate::content::{Buffered, Content, ZERO_BLOCK};
use crate::interval::IntervalMap;
use crate::map::{Location, Mapping};
use crate::objects::ObjectIndex;
use crate::prefix::Prefix;

/// A run of bytes of a read, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanPiece {
    /// In memory.
    Buffered(Bytes),
    /// This many zero bytes.
    Zeroes(u64),
    /// This many bytes of which nobody knows where they are: a region of the map was lost.
    Lost {
        /// The first block of them.
        block: BlockIndex,
        /// How many bytes were asked for.
        length_bytes: u64,
    },
    /// In an object's payload.
    Stored {
        /// The object.
        object: ObjectIndex,
        /// First block in its payload.
        ordinal: BlockOrdinal,
        /// Blocks to fetch.
        blocks: u32,
        /// Bytes of the first block that were not asked for.
        skip_bytes: u32,
        /// Bytes that were asked for.
        length_bytes: u64,
    },
}

/// A run of bytes and whether it is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Length in bytes.
    pub length_bytes: u64,
    /// Nothing is stored for it.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

/// What a run of blocks is.
enum Source {
    Buffered(Content),
    Mapped(Mapping),
    Hole,
}

/// Calls `each` for the runs of `extent`, in order, without gaps; or tells which regions it needs first.
fn walk(
    overlay: &IntervalMap<Buffered>,
    prefix: &Prefix,
    extent: Extent,
    mut each: impl FnMut(Extent, Source),
) -> Result<(), Vec<RegionIndex>> {
    let mut at = extent.start.0;
    let mut absent = Vec::new();
    let mut below = |from: u64, to: u64, each: &mut dyn FnMut(Extent, Source)| {
        let mut at = from;
        prefix.absent_in(Extent::new(from, to - from), usize::MAX, &mut absent);
        if !absent.is_empty() {
            return; // the rest only tells what else is needed
        }
        for (run, mapping) in prefix.map().overlapping(Extent::new(from, to - from)) {
            if run.start.0 > at {
                each(Extent::new(at, run.start.0 - at), Source::Hole);
            }
            each(run, Source::Mapped(mapping));
            at = run.end().0;
        }
        if at < to {
            each(Extent::new(at, to - at), Source::Hole);
        }
    };
    for (run, buffered) in overlay.overlapping(extent) {
        if run.start.0 > at {
            below(at, run.start.0, &mut each);
        }
        each(run, Source::Buffered(buffered.content));
        at = run.end().0;
    }
    if at < extent.end().0 {
        below(at, extent.end().0, &mut each);
    }
    if absent.is_empty() { Ok(()) } else { Err(absent) }
}

pub(crate) fn blocks_of(offset_bytes: u64, length_bytes: u64) -> Extent {
    let start = offset_bytes / BLOCK_BYTES;
    Extent::new(start, (offset_bytes + length_bytes).div_ceil(BLOCK_BYTES) - start)
}

pub(crate) fn plan_read(
    overlay: &IntervalMap<Buffered>,
    prefix: &Prefix,
    offset_bytes: u64,
    length_bytes: u64,
) -> Result<Vec<PlanPiece>, Vec<RegionIndex>> {
    let end_bytes = offset_bytes + length_bytes;
    let mut plan: Vec<PlanPiece> = Vec::new();
    walk(overlay, prefix, blocks_of(offset_bytes, length_bytes), |run, source| {
        let run_start = run.start.offset_bytes();
        let from = run_start.max(offset_bytes);
        let length_bytes = run.end().offset_bytes().min(end_bytes) - from;
        let skip_bytes = from - run_start;
        let piece = match source {
            Source::Buffered(Content::Data(bytes)) => {
                let skip = in_memory(skip_bytes);
                PlanPiece::Buffered(bytes.slice(skip..skip + in_memory(length_bytes)))
            }
            Source::Mapped(Mapping::Stored(Location { object, ordinal })) => PlanPiece::Stored {
                object,
                ordinal,
                blocks: u32::try_from(run.count.0).expect("an object has fewer than 2^32 blocks"),
                skip_bytes: u32::try_from(skip_bytes).expect("less than a block"),
                length_bytes,
            },
            Source::Mapped(Mapping::Lost) => PlanPiece::Lost { block: run.start, length_bytes },
            Source::Buffered(Content::Zero | Content::Trim)
            | Source::Mapped(Mapping::Zero)
            | Source::Hole => {
                if let Some(PlanPiece::Zeroes(before)) = plan.last_mut() {
                    *before += length_bytes;
                    return;
                }
                PlanPiece::Zeroes(length_bytes)
            }
        };
        plan.push(piece);
    })?;
    Ok(plan)
}

/// The status of a range, or of its beginning, as far as that is in memory.
pub(crate) fn status(
    overlay: &IntervalMap<Buffered>,
    prefix: &Prefix,
    offset_bytes: u64,
    length_bytes: u64,
) -> Result<Vec<Status>, Vec<RegionIndex>> {
    let mut end_bytes = offset_bytes + length_bytes;
    let range = blocks_of(offset_bytes, length_bytes);
    if let Some(absent) = prefix.map().first_absent(range) {
        let until = absent.extent().start;
        if until > range.start {
            end_bytes = until.offset_bytes();
        }
    }
    let length_bytes = end_bytes - offset_bytes;
    let mut statuses: Vec<Status> = Vec::new();
    walk(overlay, prefix, blocks_of(offset_bytes, length_bytes), |run, source| {
        let from = run.start.offset_bytes().max(offset_bytes);
        let length_bytes = run.end().offset_bytes().min(end_bytes) - from;
        let (hole, zero) = match source {
            Source::Buffered(Content::Data(_)) | Source::Mapped(Mapping::Stored(_) | Mapping::Lost) => {
                (false, false)
            }
            Source::Buffered(Content::Zero) | Source::Mapped(Mapping::Zero) => (false, true),
            Source::Buffered(Content::Trim) | Source::Hole => (true, true),
        };
        match statuses.last_mut() {
            Some(last) if last.hole == hole && last.zero == zero => last.length_bytes += length_bytes,
            _ => statuses.push(Status { length_bytes, hole, zero }),
        }
    })?;
    Ok(statuses)
}

/// Blocks of a run that hold data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// How many.
    pub blocks: u64,
    /// The first of them.
    pub first: Option<BlockIndex>,
}

impl Live {
    /// Counts a run.
    pub fn add(&mut self, first: BlockIndex, blocks: u64) {
        self.blocks += blocks;
        self.first = self.first.into_iter().chain([first]).min();
    }
}

/// Counts what holds data.
pub(crate) fn live(
    overlay: &IntervalMap<Buffered>,
    prefix: &Prefix,
    extent: Extent,
) -> Result<Live, Vec<RegionIndex>> {
    let mut live = Live::default();
    walk(overlay, prefix, extent, |run, source| match source {
        // What is lost may come back by hand.
        Source::Buffered(Content::Data(_)) | Source::Mapped(Mapping::Stored(_) | Mapping::Lost) => {
            live.add(run.start, run.count.0);
        }
        Source::Buffered(Content::Zero | Content::Trim) | Source::Mapped(Mapping::Zero) | Source::Hole => {}
    })?;
    Ok(live)
}

/// The content of one block if memory or the map alone can say it.
pub(crate) enum BlockSource {
    Known(Bytes),
    Stored(Location),
    Absent(RegionIndex),
    Lost,
}

pub(crate) fn block(overlay: &IntervalMap<Buffered>, prefix: &Prefix, block: BlockIndex) -> BlockSource {
    match overlay.get(block) {
        Some(Buffered { content: Content::Data(bytes), .. }) => BlockSource::Known(bytes),
        Some(_) => BlockSource::Known(Bytes::from_static(&ZERO_BLOCK)),
        None if prefix.map().first_absent(Extent::new(block.0, 1)).is_some() => {
            BlockSource::Absent(RegionIndex::of(block))
        }
        None => match prefix.map().get(block) {
            Some(Mapping::Stored(location)) => BlockSource::Stored(location),
            Some(Mapping::Lost) => BlockSource::Lost,
            Some(Mapping::Zero) | None => BlockSource::Known(Bytes::from_static(&ZERO_BLOCK)),
        },
    }
}

fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it is in memory")
}
