//! A region: the mappings of 64 MiB.
//!
//! Knows positions in the region alone. It is a sorted list of runs while these are few, as they are where data was written in
//! large pieces, and leaves when they are many. Invariants:
//! 1. runs of the list are not empty, do not overlap, and none continues the one before it;
//! 2. a list has at most [`LIST_MAX`] runs; leaves had more than that, or one that is wide, and have been above
//!    [`LIST_AGAIN`] since, or still have a wide one.

use std::ops::Range;

use super::leaf::{LEAF_BLOCKS, Leaf};
use super::place::{Narrow, Place, Unfit};
use super::{Cost, Mapping, ObjectIndex, Piece, REGION_BLOCKS, sized};

/// [`REGION_BLOCKS`] for positions in a region.
pub(super) const REGION_LEN: u32 = 16_384;
const _: () = assert!(REGION_LEN as u64 == REGION_BLOCKS);
const LEAVES: usize = REGION_LEN as usize / LEAF_BLOCKS as usize;
/// Above this many runs the list becomes leaves: an insertion moves 2.5 KiB on average then.
const LIST_MAX: usize = 512;
/// At this many runs leaves become a list again: far enough below to not go to and fro.
const LIST_AGAIN: usize = 256;

/// A run of the list: 10 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    start: u16,
    count: u16,
    place: Narrow,
}

impl Run {
    #[inline]
    fn end(self) -> u32 {
        u32::from(self.start) + u32::from(self.count)
    }

    #[inline]
    fn mapping(self) -> Mapping {
        self.place.unpack()
    }

    #[inline]
    fn pack(piece: Piece) -> Result<Self, Unfit> {
        let short = |blocks: u32| u16::try_from(blocks).expect("a region has fewer than 2^16 blocks");
        let place = Narrow::pack(piece.mapping).ok_or(Unfit)?;
        Ok(Self { start: short(piece.start), count: short(piece.count), place })
    }

    #[inline]
    fn piece(self, from: u32, to: u32) -> Piece {
        let start = from.max(u32::from(self.start));
        let mapping = self.mapping().after(start - u32::from(self.start));
        Piece { start, count: self.end().min(to) - start, mapping }
    }
}

/// What is known of a region.
#[derive(Debug)]
pub(super) enum Region {
    /// It has content, and that is not in memory.
    Absent,
    /// Few runs, or none.
    List(Vec<Run>),
    /// Many.
    Leaves(Box<Leaves>),
}

#[derive(Debug)]
pub(super) struct Leaves {
    /// Of all leaves.
    runs: usize,
    leaves: [Leaf; LEAVES],
}

impl Default for Region {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// Positions `from..to` leaf by leaf: which leaf, where it begins, and where in it.
#[inline]
fn by_leaf(from: u32, to: u32) -> impl Iterator<Item = (usize, u32, Range<u32>)> {
    (from / LEAF_BLOCKS..to.div_ceil(LEAF_BLOCKS)).map(move |leaf| {
        let first = leaf * LEAF_BLOCKS;
        (leaf as usize, first, from.saturating_sub(first)..(to - first).min(LEAF_BLOCKS))
    })
}

impl Region {
    /// Whether it is a hole altogether.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::List(runs) => runs.is_empty(),
            Self::Leaves(leaves) => leaves.runs == 0,
        }
    }

    /// The mapping of a block.
    #[inline]
    pub fn get(&self, block: u32) -> Option<Mapping> {
        match self {
            Self::Absent => absent(),
            Self::List(runs) => {
                let run = runs.get(ends_above(runs, block))?;
                (u32::from(run.start) <= block).then(|| run.mapping().after(block - u32::from(run.start)))
            }
            Self::Leaves(leaves) => leaves.leaves[(block / LEAF_BLOCKS) as usize].get(block % LEAF_BLOCKS),
        }
    }

    /// The first piece of a run in `from..to`. What continues in the next leaf is another piece.
    #[inline]
    pub fn next(&self, from: u32, to: u32) -> Option<Piece> {
        match self {
            Self::Absent => absent(),
            Self::List(runs) => {
                let run = runs.get(ends_above(runs, from))?;
                (u32::from(run.start) < to).then(|| run.piece(from, to))
            }
            Self::Leaves(leaves) => by_leaf(from, to).find_map(|(nth, first, range)| {
                let piece = leaves.leaves[nth].next(range.start, range.end)?;
                Some(Piece { start: first + piece.start, ..piece })
            }),
        }
    }

    /// Maps `from..to`, or makes it a hole.
    pub fn update(
        &mut self,
        from: u32,
        to: u32,
        mapping: Option<Mapping>,
        displaced: &mut impl FnMut(ObjectIndex, u64),
        total: &mut Cost,
    ) {
        match self {
            Self::Absent => absent(),
            Self::List(runs) => {
                let before = list_cost(runs);
                let fits = update_list(runs, from, to, mapping, displaced).is_ok();
                total.change(before, list_cost(runs));
                if !fits || runs.len() > LIST_MAX {
                    self.become_leaves(total);
                }
                if !fits {
                    self.update(from, to, mapping, displaced, total);
                }
            }
            Self::Leaves(leaves) => {
                for (nth, first, range) in by_leaf(from, to) {
                    let leaf = &mut leaves.leaves[nth];
                    let before = leaf.cost();
                    let part = mapping.map(|mapping| mapping.after(first + range.start - from));
                    leaf.update(range.start, range.end, part, displaced);
                    let after = leaf.cost();
                    total.change(before, after);
                    leaves.runs = leaves.runs + after.records - before.records;
                }
                if leaves.runs <= LIST_AGAIN {
                    self.become_list(total);
                }
            }
        }
    }

    /// What it takes beside its slot, leaf by leaf.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Absent => Cost::default(),
            Self::List(runs) => list_cost(runs),
            Self::Leaves(leaves) => {
                let mut cost = Cost { bytes: size_of::<Leaves>() as u64, records: 0 };
                for leaf in &leaves.leaves {
                    cost.change(Cost::default(), leaf.cost());
                }
                cost
            }
        }
    }

    fn become_leaves(&mut self, total: &mut Cost) {
        let before = self.cost();
        let mut leaves = Box::new(Leaves { runs: 0, leaves: Default::default() });
        if let Self::List(runs) = self {
            for run in runs {
                let from = u32::from(run.start);
                for (nth, first, range) in by_leaf(from, run.end()) {
                    let mapping = run.mapping().after(first + range.start - from);
                    leaves.leaves[nth].update(range.start, range.end, Some(mapping), &mut |_, _| {});
                }
            }
        }
        leaves.runs = leaves.leaves.iter().map(|leaf| leaf.cost().records).sum();
        *self = Self::Leaves(leaves);
        total.change(before, self.cost());
    }

    /// Stays as it is if a run does not fit the list.
    fn become_list(&mut self, total: &mut Cost) {
        let mut pieces: Vec<Piece> = Vec::with_capacity(LIST_AGAIN);
        let mut at = 0;
        while at < REGION_LEN
            && let Some(piece) = self.next(at, REGION_LEN)
        {
            at = piece.end();
            match pieces.last_mut() {
                Some(last) if last.is_continued_by(&piece) => last.count += piece.count,
                _ => pieces.push(piece),
            }
        }
        let Ok(mut runs) = pieces.into_iter().map(Run::pack).collect::<Result<Vec<_>, _>>() else {
            return;
        };
        runs.shrink_to_fit();
        let before = self.cost();
        *self = Self::List(runs);
        total.change(before, self.cost());
    }
}

/// Nobody asks an absent region for its mappings: an answer would be a guess.
#[cold]
fn absent() -> ! {
    panic!("the region is not in memory")
}

fn list_cost(runs: &Vec<Run>) -> Cost {
    Cost { bytes: sized::bytes(runs), records: runs.len() }
}

/// Index of the first run that ends above `block`.
#[inline]
fn ends_above(runs: &[Run], block: u32) -> usize {
    runs.partition_point(|run| run.end() <= block)
}

/// Maps `from..to`, or makes it a hole. Nothing has changed where it does not fit.
fn update_list(
    runs: &mut Vec<Run>,
    from: u32,
    to: u32,
    mapping: Option<Mapping>,
    displaced: &mut impl FnMut(ObjectIndex, u64),
) -> Result<(), Unfit> {
    let low = ends_above(runs, from);
    let high = low + runs[low..].iter().take_while(|run| u32::from(run.start) < to).count();
    let met = &runs[low..high];
    let mut replaced = low..high;
    let mut new = Joined::default();

    // What is left before it, or the run that it may continue.
    match met.first() {
        Some(first) if u32::from(first.start) < from => new.push(first.piece(0, from)),
        _ if low > 0 && runs[low - 1].end() == from => {
            replaced.start -= 1;
            new.push(runs[low - 1].piece(0, from));
        }
        _ => {}
    }
    if let Some(mapping) = mapping {
        new.push(Piece { start: from, count: to - from, mapping });
    }
    match met.last() {
        Some(last) if last.end() > to => new.push(last.piece(to, REGION_LEN)),
        _ => {
            if let Some(next) = runs.get(high)
                && u32::from(next.start) == to
            {
                replaced.end += 1;
                new.push(next.piece(to, REGION_LEN));
            }
        }
    }
    let mut packed = [None; 3];
    for (run, piece) in packed.iter_mut().zip(new.pieces) {
        *run = piece.map(Run::pack).transpose()?;
    }

    for run in met {
        let piece = run.piece(from, to);
        if let Mapping::Stored(location) = piece.mapping {
            displaced(location.object, u64::from(piece.count));
        }
    }
    match packed {
        [Some(a), Some(b), Some(c)] => sized::replace(runs, replaced, &[a, b, c], LIST_MAX + 2),
        [Some(a), Some(b), None] => sized::replace(runs, replaced, &[a, b], LIST_MAX + 2),
        [Some(a), ..] => sized::replace(runs, replaced, &[a], LIST_MAX + 2),
        [None, ..] => sized::replace(runs, replaced, &[], LIST_MAX + 2),
    }
    Ok(())
}

/// Up to three pieces, as few as they can be.
#[derive(Default)]
struct Joined {
    pieces: [Option<Piece>; 3],
    count: usize,
}

impl Joined {
    fn push(&mut self, piece: Piece) {
        if let Some(last) = self.pieces[..self.count].last_mut().and_then(Option::as_mut)
            && last.is_continued_by(&piece)
        {
            last.count += piece.count;
        } else {
            self.pieces[self.count] = Some(piece);
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests;
