//! A leaf: the mappings of 512 blocks that are too many for a list of runs.
//!
//! Knows positions in the leaf alone. A run is kept as the mapping of its first block; two sets of blocks say which
//! blocks are mapped, and at which a run begins. Its place in the array is the number of runs that begin before it, so
//! there is no search. Invariants:
//! 1. a block at which a run begins is mapped, and so is none of which no run begins at or before it;
//! 2. no run continues the one before it;
//! 3. where no block is mapped, and where every block is a run, there are no sets: the array alone says so.

use super::place::{Narrow, Place, Unfit};
use super::set::BlockSet;
use super::{Cost, Mapping, ObjectIndex, Piece, sized};

/// Blocks of a leaf: 2 MiB. Small, for what an insertion moves; large, for what a leaf costs beside its runs.
pub(super) const LEAF_BLOCKS: u32 = 512;

#[derive(Clone, Debug)]
struct Sets {
    mapped: BlockSet,
    begins: BlockSet,
}

/// The runs of a leaf, in one form.
#[derive(Debug)]
pub(super) struct Ranked<P> {
    sets: Option<Box<Sets>>,
    places: Vec<P>,
}

impl<P> Default for Ranked<P> {
    fn default() -> Self {
        Self { sets: None, places: Vec::new() }
    }
}

impl<P: Place> Ranked<P> {
    #[inline]
    fn is_full(&self) -> bool {
        self.places.len() == LEAF_BLOCKS as usize
    }

    /// The mapping of a block, and whether a run begins at it.
    #[inline]
    fn at(&self, block: u32) -> Option<(Mapping, bool)> {
        let Some(sets) = &self.sets else {
            return self.places.get(block as usize).map(|place| (place.unpack(), true));
        };
        if !sets.mapped.contains(block) {
            return None;
        }
        let begin = sets.begins.last(block)?;
        let place = self.places[sets.begins.count_below(begin)];
        Some((place.unpack().after(block - begin), begin == block))
    }

    /// The first piece of a run in `from..to`.
    #[inline]
    fn next(&self, from: u32, to: u32) -> Option<Piece> {
        let (start, end) = match &self.sets {
            None => (from, from + 1),
            Some(sets) => {
                let start = sets.mapped.next(from);
                if start >= to {
                    return None;
                }
                (start, sets.mapped.next_gap(start).min(sets.begins.next(start + 1)).min(to))
            }
        };
        let (mapping, _) = self.at(start)?;
        Some(Piece { start, count: end - start, mapping })
    }

    /// Maps `from..to`, or makes it a hole. Nothing has changed where it does not fit.
    #[inline]
    fn update(
        &mut self,
        from: u32,
        to: u32,
        mapping: Option<Mapping>,
        displaced: &mut impl FnMut(ObjectIndex, u64),
    ) -> Result<(), Unfit> {
        let before = if from > 0 { self.at(from - 1) } else { None };
        let after = if to < LEAF_BLOCKS { self.at(to) } else { None };
        let (mut begins, mut joins) = (mapping.is_some(), false);
        if let Some(mapping) = mapping {
            begins = !before.is_some_and(|(before, _)| before.continues(1, mapping));
            joins = after.is_some_and(|(after, _)| mapping.continues(u64::from(to - from), after));
        }
        // What goes on behind `to` without a beginning of its own has lost the one that it had.
        let cut = after.filter(|(_, begins)| !begins && !joins).map(|(mapping, _)| mapping);
        let mut new = [None; 2];
        for (place, mapping) in new.iter_mut().zip([mapping.filter(|_| begins), cut]) {
            if let Some(mapping) = mapping {
                *place = Some(P::pack(mapping).ok_or(Unfit)?);
            }
        }

        let mut at = from;
        while let Some(piece) = self.next(at, to) {
            if let Mapping::Stored(location) = piece.mapping {
                displaced(location.object, u64::from(piece.count));
            }
            at = piece.end();
            if at >= to {
                break;
            }
        }

        if self.is_full()
            && to - from == 1
            && !joins
            && let [Some(place), None] = new
        {
            self.places[from as usize] = place;
            return Ok(());
        }
        let full = self.is_full();
        let sets = self.sets.get_or_insert_with(|| {
            let set = if full { BlockSet::ALL } else { BlockSet::EMPTY };
            Box::new(Sets { mapped: set.clone(), begins: set })
        });
        let joined = joins && sets.begins.contains(to);
        let low = sets.begins.count_below(from);
        let high = sets.begins.count_below(to) + usize::from(joined);
        sets.mapped.set(from, to, mapping.is_some());
        sets.begins.set(from, to, false);
        if joined {
            sets.begins.remove(to);
        }
        if new[0].is_some() {
            sets.begins.insert(from);
        }
        if new[1].is_some() {
            sets.begins.insert(to);
        }
        let len_max = LEAF_BLOCKS as usize;
        match new {
            [Some(first), Some(second)] => {
                sized::replace(&mut self.places, low..high, &[first, second], len_max);
            }
            [Some(place), None] | [None, Some(place)] => {
                sized::replace(&mut self.places, low..high, &[place], len_max);
            }
            [None, None] => sized::replace(&mut self.places, low..high, &[], len_max),
        }
        if self.places.is_empty() || self.is_full() {
            self.sets = None;
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let sets = if self.sets.is_some() { size_of::<Sets>() as u64 } else { 0 };
        sets + sized::bytes(&self.places)
    }
}

/// The runs of 512 blocks. Most leaves are narrow; one becomes wide where a place does not fit, and narrow again when
/// all of it is replaced or it becomes a hole.
#[derive(Debug)]
pub(super) enum Leaf {
    Narrow(Ranked<Narrow>),
    Wide(Box<Ranked<Mapping>>),
}

impl Default for Leaf {
    fn default() -> Self {
        Self::Narrow(Ranked::default())
    }
}

impl Leaf {
    #[inline]
    pub fn get(&self, block: u32) -> Option<Mapping> {
        let found = match self {
            Self::Narrow(runs) => runs.at(block),
            Self::Wide(runs) => runs.at(block),
        };
        found.map(|(mapping, _)| mapping)
    }

    /// The first piece of a run in `from..to`, which is not empty.
    #[inline]
    pub fn next(&self, from: u32, to: u32) -> Option<Piece> {
        match self {
            Self::Narrow(runs) => runs.next(from, to),
            Self::Wide(runs) => runs.next(from, to),
        }
    }

    /// Maps `from..to`, or makes it a hole.
    #[inline]
    pub fn update(
        &mut self,
        from: u32,
        to: u32,
        mapping: Option<Mapping>,
        displaced: &mut impl FnMut(ObjectIndex, u64),
    ) {
        match self {
            Self::Narrow(runs) => {
                if runs.update(from, to, mapping, displaced).is_err() {
                    let places = runs.places.iter().map(|place| place.unpack()).collect();
                    let mut wide = Ranked { sets: runs.sets.take(), places };
                    wide.update(from, to, mapping, displaced).expect("everything fits the wide form");
                    *self = Self::Wide(Box::new(wide));
                }
            }
            Self::Wide(runs) => {
                // First a hole, when all is replaced: it may be narrow then.
                let whole = from == 0 && to == LEAF_BLOCKS;
                let first = if whole { None } else { mapping };
                runs.update(from, to, first, displaced).expect("everything fits the wide form");
                if runs.places.is_empty() {
                    *self = Self::default();
                }
                if whole && mapping.is_some() {
                    self.update(from, to, mapping, displaced);
                }
            }
        }
    }

    #[inline]
    pub fn cost(&self) -> Cost {
        match self {
            Self::Narrow(runs) => Cost { bytes: runs.bytes(), records: runs.places.len() },
            Self::Wide(runs) => {
                let inline = size_of::<Ranked<Mapping>>() as u64;
                Cost { bytes: inline + runs.bytes(), records: runs.places.len() }
            }
        }
    }
}

#[cfg(test)]
impl Leaf {
    pub fn is_wide(&self) -> bool {
        matches!(self, Self::Wide(_))
    }

    pub fn has_sets(&self) -> bool {
        match self {
            Self::Narrow(runs) => runs.sets.is_some(),
            Self::Wide(runs) => runs.sets.is_some(),
        }
    }
}
