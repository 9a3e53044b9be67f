//! The judge: is what a crash left a prefix of one order of the requests, with all that was durable? (rule 1)
//!
//! Given is what was there before (`base`), all requests since with the ticks of their asking and their answers, and what is
//! there now (`found`). The judgement, exactly:
//!
//! - A request's part of one block is a **unit**: it is there whole or not at all. A write may tear at block boundaries, and
//!   nowhere else.
//! - The **order** is one of all units in which a unit that was answered before another was asked comes first. With one
//!   connection and one request in flight there is one such order; with several in flight there are many, and one must do.
//! - The **prefix** is a set of units: with each it holds all that were answered as done before that one was asked. The units
//!   in it, applied to `base` in one such order, give `found`.
//! - It holds every unit that was answered as done **with FUA**, and every unit that was answered as done before **a flush**
//!   was asked that was answered as done, on whichever connection. (This half alone is waived where a journal was given up.)
//! - A unit that was not answered may be in it. One that was answered with an error may be too, but it is then not later in
//!   the order than its answer.
//!
//! The judgement is exact in both directions, not a set of necessary conditions. Two facts make it cheap:
//!
//! 1. What must come before a unit depends on when that one was asked only. So a set is a prefix if and only if there is a
//!    tick, its **limit**, such that it holds all that was done before the limit and nothing that was asked after it.
//! 2. Whether one order exists can be asked block by block: units of one block are operations on one object, the sight of
//!    `found` is one after all others, and linearizability is local (Herlihy and Wing 1990).
//!
//! So for every limit every block is asked whether it can be explained, and one limit must do for all blocks. A block is
//! explained from its end: a unit may be last if nothing left was asked after its answer, and if what it leaves is found
//! wherever no later unit has overwritten it. Taking any such unit is never wrong: in an order that does, it could be moved to
//! the end. If none may be last, the optional unit that was asked last stands in the way of all, and is not there.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use super::history::{BLOCK_SECTORS, Kind, NEVER, Op, Tick, Value};

const SECTORS: usize = BLOCK_SECTORS as usize;

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    /// What was there before the first request, by sector.
    pub(crate) base: &'a [Value],
    /// The requests, in any order.
    pub(crate) ops: &'a [Op],
    /// What is there now.
    pub(crate) found: &'a [Value],
    /// Whether flushes and FUA bind.
    pub(crate) durable: bool,
}

/// What a lawful state shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Requests that had to be there.
    pub(crate) required: u64,
    /// Requests that were answered as done, were not durable, and are gone: asked after the end of what is left.
    pub(crate) gone: u64,
}

/// A request's part of one block.
#[derive(Clone, Copy, Debug)]
struct Unit {
    op: usize,
    /// Its sectors of the block, a bit each.
    mask: u8,
    value: Value,
    submit: Tick,
    done: Tick,
    answered: Tick,
    required: bool,
}

/// Judges a claim.
///
/// # Errors
/// Why no prefix explains what was found.
pub(crate) fn judge(claim: Claim<'_>) -> Result<Verdict, String> {
    let judged = Judged::new(claim);
    let (limit, unexplained) = judged.best();
    if unexplained == 0 {
        return Ok(judged.verdict(limit));
    }
    let waived = Judged::new(Claim { durable: false, ..claim });
    match waived.best() {
        (end, 0) if claim.durable => Err(judged.lost(end)),
        _ => Err(format!("NO PREFIX: no order of the requests explains this\n{}", judged.explain(limit))),
    }
}

struct Judged<'a> {
    claim: Claim<'a>,
    blocks: Vec<Vec<Unit>>,
    required: Vec<bool>,
    /// Below this no limit may be.
    floor: Tick,
}

impl<'a> Judged<'a> {
    fn new(claim: Claim<'a>) -> Self {
        assert_eq!(claim.base.len(), claim.found.len(), "both are the whole volume");
        assert_eq!(claim.base.len() % SECTORS, 0, "a volume has whole blocks");
        let is_done = |op: &&Op| op.kind == Kind::Flush && op.done() != NEVER;
        let flushed = claim.ops.iter().filter(is_done).map(|op| op.submit).max().unwrap_or(0);
        let binds = |op: &Op| claim.durable && (op.done() < flushed || op.fua && op.done() != NEVER);
        // A trim of no whole block is nothing that could be durable.
        let required: Vec<bool> = claim.ops.iter().map(|op| !op.sectors().is_empty() && binds(op)).collect();
        let must = claim.ops.iter().zip(&required).filter(|(_, required)| **required);
        let floor = must.map(|(op, _)| op.submit).max().unwrap_or(0);
        let mut blocks = vec![Vec::new(); claim.base.len() / SECTORS];
        for (index, op) in claim.ops.iter().enumerate() {
            let sectors = op.sectors();
            let mut at = sectors.start;
            while at < sectors.end {
                let block = at / BLOCK_SECTORS;
                let end = ((block + 1) * BLOCK_SECTORS).min(sectors.end);
                let bits = |sector: u32| (1_u16 << (sector - block * BLOCK_SECTORS)) - 1;
                let mask = u8::try_from(bits(end) & !bits(at)).expect("a block has 8 sectors");
                blocks[block as usize].push(Unit {
                    op: index,
                    mask,
                    value: op.value(),
                    submit: op.submit,
                    done: op.done(),
                    answered: op.answered(),
                    required: required[index],
                });
                at = end;
            }
        }
        Self { claim, blocks, required, floor }
    }

    /// The limit that leaves the fewest blocks unexplained, the highest of these, and how many it leaves.
    fn best(&self) -> (Tick, i64) {
        let above = self.claim.ops.iter().map(|op| op.submit).filter(|submit| *submit > self.floor);
        let mut limits: Vec<Tick> = above.chain([self.floor]).collect();
        limits.sort_unstable();
        limits.dedup();
        // By how much the number of unexplained blocks changes at each limit.
        let mut changes = vec![0_i64; limits.len() + 1];
        for (block, units) in self.blocks.iter().enumerate() {
            let from = |tick: Tick| limits.partition_point(|limit| *limit < tick);
            // Between these nothing changes for this block: a unit may be there from its asking on, and must after its end.
            let mut turns: Vec<usize> = units
                .iter()
                .flat_map(|unit| [from(unit.submit), from(unit.done.saturating_add(1))])
                .chain([0, limits.len()])
                .collect();
            turns.sort_unstable();
            turns.dedup();
            for turn in turns.windows(2) {
                if !self.explains(block, limits[turn[0]]) {
                    changes[turn[0]] += 1;
                    changes[turn[1]] -= 1;
                }
            }
        }
        let mut unexplained = 0;
        let counts = limits.iter().zip(&changes).map(|(limit, change)| {
            unexplained += change;
            (*limit, unexplained)
        });
        counts.min_by_key(|(limit, unexplained)| (*unexplained, NEVER - limit)).unwrap_or((self.floor, 0))
    }

    /// Whether some of the block's units that were asked up to `limit`, those with all that were done before it, give what
    /// was found, in some order.
    fn explains(&self, block: usize, limit: Tick) -> bool {
        let sectors = block * SECTORS..(block + 1) * SECTORS;
        let (base, found) = (&self.claim.base[sectors.clone()], &self.claim.found[sectors]);
        let differs = |mask: u8, value: &dyn Fn(usize) -> Value| {
            (0..SECTORS).any(|sector| mask & 1 << sector != 0 && value(sector) != found[sector])
        };
        let asked = self.blocks[block].iter().filter(|unit| unit.submit <= limit);
        let mut left: Vec<&Unit> = asked.collect();
        // Sectors that no unit taken so far, all of them later in the order, has written.
        let mut open = u8::MAX;
        while open != 0 {
            let Some(newest) = left.iter().map(|unit| unit.submit).max() else { break };
            let may_be_last =
                |unit: &&Unit| unit.answered >= newest && !differs(unit.mask & open, &|_| unit.value);
            if let Some(last) = left.iter().position(may_be_last) {
                open &= !left.swap_remove(last).mask;
                continue;
            }
            let optional = left.iter().enumerate().filter(|(_, unit)| !unit.required && unit.done >= limit);
            match optional.max_by_key(|(_, unit)| unit.submit).map(|(index, _)| index) {
                Some(index) => drop(left.swap_remove(index)),
                None => return false,
            }
        }
        !differs(open, &|sector| base[sector])
    }

    fn verdict(&self, limit: Tick) -> Verdict {
        let required = self.required.iter().filter(|required| **required).count() as u64;
        let ops = self.claim.ops.iter().filter(|op| op.done() != NEVER && !op.sectors().is_empty());
        let gone = ops.filter(|op| op.submit > limit).count() as u64;
        Verdict { required, gone }
    }

    /// What is gone where what is left would be a prefix up to `end`.
    fn lost(&self, end: Tick) -> String {
        const OPS: usize = 5;
        let ops = self.claim.ops.iter().zip(&self.required);
        let mut gone: Vec<&Op> =
            ops.filter(|(op, required)| **required && op.submit > end).map(|(op, _)| op).collect();
        gone.sort_by_key(|op| op.submit);
        let mut said = format!(
            "LOST: what is left is a prefix, but it ends at tick {end}, before {} requests that were durable",
            gone.len()
        );
        for op in gone.iter().take(OPS) {
            let _ = write!(said, "\n  {op}");
        }
        // Torn, or before the end and not there: only the blocks can tell.
        if gone.is_empty() { said + "\n" + &self.explain(end.max(self.floor)) } else { said }
    }

    /// The first blocks that the best limit does not explain.
    fn explain(&self, limit: Tick) -> String {
        const BLOCKS: usize = 3;
        const UNITS: usize = 6;
        let unexplained: Vec<usize> =
            (0..self.blocks.len()).filter(|block| !self.explains(*block, limit)).collect();
        let mut said = format!(
            "the best that can be said: all that was done before tick {limit}, nothing that was asked later; {} blocks are \
             not explained by that",
            unexplained.len()
        );
        for &block in unexplained.iter().take(BLOCKS) {
            let sectors = block * SECTORS..(block + 1) * SECTORS;
            let (base, found) = (&self.claim.base[sectors.clone()], &self.claim.found[sectors.clone()]);
            let _ = write!(said, "\nblock {block}, sectors {sectors:?}: found {found:?}, before {base:?}");
            let mut units: Vec<&Unit> = self.blocks[block].iter().collect();
            units.sort_by_key(|unit| unit.submit);
            let near = units.partition_point(|unit| unit.submit <= limit) + UNITS / 2;
            let near = near.min(units.len());
            for unit in &units[near.saturating_sub(UNITS)..near] {
                let must = if unit.required {
                    ": durable"
                } else if unit.done < limit {
                    ": must be there"
                } else {
                    ""
                };
                let _ = write!(said, "\n  {}{must}", self.claim.ops[unit.op]);
            }
        }
        said
    }
}
