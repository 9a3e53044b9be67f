//! Writes cut at block boundaries, and which of them cover a sector.
//!
//! Knows no order: only what was asked, where, and between which ticks.

use crate::history::{Generation, Outcome, Request, Tick};
use crate::sector::{BLOCK_SECTORS, Value};

/// One write's, zeroing's or trim's part of one block: whole or not there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// The write's number, 0 for what leaves zeroes.
    pub(super) id: u32,
    /// First sector that it covers.
    pub(super) first: u32,
    /// Sectors that it covers, 1 to 8, all of one block.
    pub(super) count: u32,
    /// When it was submitted.
    pub(super) submit: Tick,
    /// When it was answered as done, or never.
    pub(super) done: Tick,
    /// Answered as done, and durable by that.
    pub(super) fua: bool,
    /// Answered with an error that promises that it was not and never will be applied.
    pub(super) refused: bool,
}

impl Unit {
    fn covers(&self, sector: u32) -> bool {
        (self.first..self.first + self.count).contains(&sector)
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        let what = if self.id == 0 { "zeroing".to_owned() } else { format!("write {}", self.id) };
        format!("{what} of sectors {}..{} (tick {})", self.first, self.first + self.count, self.submit)
    }
}

/// All units of a generation.
#[derive(Debug)]
pub(super) struct Units {
    /// By submission.
    pub(super) all: Vec<Unit>,
    by_block: Vec<Vec<usize>>,
}

impl Units {
    pub(super) fn of(generation: &Generation, base: &[Value]) -> Self {
        let blocks = base.len().div_ceil(BLOCK_SECTORS as usize);
        let mut units = Self { all: Vec::new(), by_block: vec![Vec::new(); blocks] };
        for op in &generation.ops {
            let (first, count, id, fua) = match op.request {
                Request::Write { first, count, id, fua } => (first, count, id, fua),
                Request::Zero { first, count, inward: false, fua } => (first, count, 0, fua),
                Request::Zero { first, count, inward: true, fua } => {
                    let start = first.next_multiple_of(BLOCK_SECTORS);
                    let end = (first + count) / BLOCK_SECTORS * BLOCK_SECTORS;
                    (start, end.saturating_sub(start), 0, fua)
                }
                Request::Flush | Request::Stored | Request::Read { .. } => continue,
            };
            let done = op.outcome.done_at();
            // One that waited for the store or a journal may be there all the same.
            let waits = fua || generation.journal.is_some();
            let refused = matches!(op.outcome, Outcome::Failed(_)) && !waits;
            let mut at = first;
            while at < first + count {
                let end = (at + 1).next_multiple_of(BLOCK_SECTORS).min(first + count);
                units.by_block[(at / BLOCK_SECTORS) as usize].push(units.all.len());
                units.all.push(Unit {
                    id,
                    first: at,
                    count: end - at,
                    submit: op.submit,
                    done,
                    fua,
                    refused,
                });
                at = end;
            }
        }
        units
    }

    /// The units that cover a sector, by submission.
    pub(super) fn covering(&self, sector: u32) -> impl Iterator<Item = usize> + '_ {
        let block = &self.by_block[(sector / BLOCK_SECTORS) as usize];
        block.iter().copied().filter(move |unit| self.all[*unit].covers(sector))
    }

    /// The unit by which write `id` reached a sector.
    pub(super) fn writer(&self, sector: u32, id: u32) -> Option<usize> {
        self.covering(sector).find(|unit| self.all[*unit].id == id)
    }
}
