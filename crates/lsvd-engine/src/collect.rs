//! Garbage collection's decisions: which objects are worth it, and which of their blocks are to move.
//!
//! Knows the object table, the map and the overlay; fetches nothing. Invariant: a block moves only if the map points at
//! it and no newer content of it is on its way (rule 6); that may change before the move is applied, which then leaves it.

use std::collections::BTreeSet;

use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::{BLOCK_BYTES, BlockOrdinal, Extent, ObjectFormat, SequenceNumber};

use crate::content::Buffered;
use crate::interval::IntervalMap;
use crate::map::{Location, Mapping};
use crate::objects::{ObjectIndex, ObjectRecord, ObjectState};
use crate::prefix::Prefix;

/// What a round of collection is to achieve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Free the most space for the least copying.
    Space,
    /// Make few objects of many small ones: those with fewer payload blocks than this.
    Small {
        /// Blocks.
        below_blocks: u64,
    },
    /// Write objects of format 1 anew.
    Format1,
    /// Write anew what lies in objects of volumes that this one is a clone of. For no other purpose is any of that moved.
    Shared,
}

/// Blocks that are to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The blocks.
    pub extent: Extent,
    /// The object that holds them.
    pub object: ObjectRecord,
    /// The first of them in its payload; the others are behind it.
    pub ordinal: BlockOrdinal,
}

/// Gaps between two moves of up to this many blocks are moved along, so that the map has one record and a reader one
/// range. The paper calls it hole plugging.
const GAP_BLOCKS_MAX: u64 = 8;

/// The objects that are best worth collecting, of those that were looked at so far: looking at all of a large log at once
/// would keep the engine from its clients.
#[derive(Debug)]
pub struct Choice {
    purpose: Purpose,
    objects_max: usize,
    looked: usize,
    /// What scores less is not among the best.
    least: f64,
    best: Vec<(f64, ObjectIndex, ObjectState)>,
}

impl Choice {
    /// A choice of so many objects at most.
    pub fn new(purpose: Purpose, objects_max: usize) -> Self {
        Self { purpose, objects_max, looked: 0, least: f64::NEG_INFINITY, best: Vec::new() }
    }

    /// Looks at the next few slots; whether there are more. An object of `but` is none to choose.
    pub(crate) fn look(&mut self, prefix: &Prefix, slots: usize, but: &BTreeSet<SequenceNumber>) -> bool {
        let next = prefix.log().next;
        let end = self.looked.saturating_add(slots);
        for (index, state) in prefix.objects().slots().iter(self.looked..end) {
            if prefix.objects().is_shared(index) == (self.purpose == Purpose::Shared)
                && let Some(score) = worth(self.purpose, next, &state)
                && !(self.purpose != Purpose::Format1 && prefix.objects().is_kept(index))
                && score >= self.least
                && !but.contains(&state.record.identity.number)
            {
                self.best.push((score, index, state));
            }
        }
        self.looked = end;
        if self.best.len() > self.objects_max.saturating_mul(2) {
            self.keep_the_best();
        }
        end < prefix.objects().slots().len()
    }

    fn keep_the_best(&mut self) {
        // By number where the score says nothing, so that neighbours in time stay together.
        let number = |state: &ObjectState| state.record.identity.number;
        self.best.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(number(&a.2).cmp(&number(&b.2))));
        self.best.truncate(self.objects_max);
        if let Some(last) = self.best.last().filter(|_| self.best.len() == self.objects_max) {
            self.least = last.0;
        }
    }

    /// The best, until this many blocks are to be copied.
    pub fn victims(mut self, live_blocks_max: u64) -> Vec<(ObjectIndex, ObjectState)> {
        self.keep_the_best();
        let mut blocks = 0u64;
        let mut victims = Vec::new();
        for (_, index, state) in self.best {
            if blocks.saturating_add(state.live_blocks) > live_blocks_max && !victims.is_empty() {
                break;
            }
            blocks += state.live_blocks;
            victims.push((index, state));
        }
        victims
    }
}

/// How much an object is worth collecting; `None` if it is not.
fn worth(purpose: Purpose, next: SequenceNumber, state: &ObjectState) -> Option<f64> {
    let payload = state.record.payload_blocks;
    // Number 0 is only in logs of format 1, and no relocation can name it.
    if state.live_blocks == 0 || state.record.identity.number.0 == 0 {
        return None;
    }
    match purpose {
        Purpose::Space if state.live_blocks < payload => Some(cost_benefit(next, state)),
        Purpose::Small { below_blocks } if payload < below_blocks => Some(1.0),
        Purpose::Format1 if state.record.format == ObjectFormat::V1 => Some(1.0),
        Purpose::Shared => Some(1.0),
        _ => None,
    }
}

/// The log-structured file system's measure: space won times how long it is likely to stay won, over what is copied.
fn cost_benefit(next: SequenceNumber, state: &ObjectState) -> f64 {
    #[allow(clippy::cast_precision_loss)] // a ratio
    let live = state.live_blocks as f64 / state.record.payload_blocks as f64;
    #[allow(clippy::cast_precision_loss)]
    let age = (next.0 - state.record.identity.number.0) as f64;
    (1.0 - live) * age / (1.0 + live)
}

/// What is to move of these runs of payloads (extent on the volume, and where its first block was written), in order of
/// address.
///
/// # Errors
/// Regions of the map that are absent.
pub(crate) fn moves(
    overlay: &IntervalMap<Buffered>,
    prefix: &Prefix,
    runs: &[(Extent, Location)],
) -> Result<Vec<Move>, Vec<RegionIndex>> {
    let mut absent = Vec::new();
    for (extent, _) in runs {
        prefix.absent_in(*extent, usize::MAX, &mut absent);
    }
    if !absent.is_empty() {
        return Err(absent);
    }
    let mut moves = Vec::new();
    for &(extent, first) in runs {
        for (run, mapping) in prefix.map().overlapping(extent) {
            let nth =
                u32::try_from(run.start.0 - extent.start.0).expect("a payload has fewer than 2^32 blocks");
            let mut was = first;
            was.ordinal.0 += nth;
            if mapping == Mapping::Stored(was) {
                let object = prefix.objects().get(was.object);
                settled(overlay, run, (object, was.ordinal), &mut moves);
            }
        }
    }
    moves.sort_unstable_by_key(|one| one.extent.start);
    Ok(plugged(overlay, prefix, moves))
}

/// Adds what of a run nothing newer is on its way for.
fn settled(
    overlay: &IntervalMap<Buffered>,
    run: Extent,
    (object, first): (ObjectRecord, BlockOrdinal),
    moves: &mut Vec<Move>,
) {
    let mut at = run.start.0;
    let mut add = |from: u64, to: u64| {
        if from < to {
            let skip = u32::try_from(from - run.start.0).expect("a payload has fewer than 2^32 blocks");
            let ordinal = BlockOrdinal(first.0 + skip);
            moves.push(Move { extent: Extent::new(from, to - from), object, ordinal });
        }
    };
    for (newer, _) in overlay.overlapping(run) {
        add(at, newer.start.0);
        at = newer.end().0;
    }
    add(at, run.end().0);
}

/// The moves with small gaps between them, where those are stored elsewhere in the same volume's objects: a clone leaves its
/// parents' where they are.
fn plugged(overlay: &IntervalMap<Buffered>, prefix: &Prefix, moves: Vec<Move>) -> Vec<Move> {
    let mut plugged: Vec<Move> = Vec::with_capacity(moves.len());
    for next in moves {
        if let Some(last) = plugged.last() {
            let (from, to) = (last.extent.end().0, next.extent.start.0);
            let volume = last.object.identity.volume;
            let gap = Extent::new(from, to.saturating_sub(from));
            if !gap.is_empty()
                && gap.count.0 <= GAP_BLOCKS_MAX
                && prefix.map().first_absent(gap).is_none()
                && overlay.overlapping(gap).next().is_none()
            {
                let stored = prefix.map().overlapping(gap).filter_map(|(extent, mapping)| match mapping {
                    Mapping::Stored(Location { object, ordinal }) => {
                        Some(Move { extent, object: prefix.objects().get(object), ordinal })
                    }
                    Mapping::Zero | Mapping::Lost => None,
                });
                let stored: Vec<Move> = stored.collect();
                let nameable =
                    |one: &Move| one.object.identity.number.0 > 0 && one.object.identity.volume == volume;
                let blocks: u64 = stored.iter().map(|one| one.extent.count.0).sum();
                if blocks == gap.count.0 && stored.iter().all(nameable) {
                    plugged.extend(stored);
                }
            }
        }
        plugged.push(next);
    }
    plugged
}

/// Bytes of volume that moves copy.
pub fn moved_bytes(moves: &[Move]) -> u64 {
    moves.iter().map(|one| one.extent.count.0 * BLOCK_BYTES).sum()
}
