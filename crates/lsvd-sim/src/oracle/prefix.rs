//! What a crash left: does a prefix of one order explain every sector, and hold all that was made durable?
//!
//! Knows nothing of live reads but what they showed of the order. The included set is the smallest that the facts
//! force; excluding more is never wrong and including more never helps, so for sectors whose value names one write
//! the answer is exact. Zeroes may have several possible writers; one is fixed only when it is the last possible one.

use std::collections::BTreeMap;

use super::Violation;
use super::order::find_cycle;
use super::reads::Shown;
use super::units::{Unit, Units};
use crate::history::{Generation, Outcome, Request, Tick};
use crate::sector::Value;

/// What was found, and what it has to hold.
pub(super) struct Claim<'a> {
    /// Who found it, for messages.
    pub(super) what: String,
    /// All sectors.
    pub(super) found: &'a [Value],
    /// What was submitted later can not be in it.
    pub(super) cut: Tick,
    /// Only what was durable by an answer before this tick must be in it.
    pub(super) flushed_before: Tick,
    /// What had completed before this tick must be in it, flushed or not.
    pub(super) completed_before: Tick,
    /// What only a journal promised need not be in it.
    pub(super) waived: bool,
    /// Units that must be in it besides: they were found durable earlier.
    pub(super) also: &'a [usize],
}

/// Why a unit is in the prefix.
#[derive(Clone, Copy, Debug)]
enum Because {
    Durable(Tick),
    Seen(u32),
    SeenEarlier,
    Before(usize),
}

struct Prefix<'a> {
    units: &'a Units,
    shown_before: Vec<Vec<usize>>,
    /// Units that were answered as done, by when.
    by_done: Vec<usize>,
    taken_by_time: usize,
    why: Vec<Option<Because>>,
    fresh: Vec<usize>,
}

impl Prefix<'_> {
    fn take(&mut self, unit: usize, because: Because) {
        if self.why[unit].is_none() {
            self.why[unit] = Some(because);
            self.fresh.push(unit);
        }
    }

    /// Takes in what must come before what is in.
    fn close(&mut self) {
        while let Some(unit) = self.fresh.pop() {
            for before in std::mem::take(&mut self.shown_before[unit]) {
                self.take(before, Because::Before(unit));
            }
            while let Some(&before) = self.by_done.get(self.taken_by_time) {
                if self.units.all[before].done >= self.units.all[unit].submit {
                    break;
                }
                self.taken_by_time += 1;
                self.take(before, Because::Before(unit));
            }
        }
    }

    fn holds(&self, unit: usize) -> bool {
        self.why[unit].is_some()
    }

    fn explain(&self, unit: usize) -> String {
        let name = self.units.all[unit].name();
        match self.why[unit] {
            None => name,
            Some(Because::Durable(tick)) => format!("{name}, durable by an answer at tick {tick}"),
            Some(Because::Seen(sector)) => format!("{name}, found in sector {sector}"),
            Some(Because::SeenEarlier) => format!("{name}, found by a reader earlier"),
            Some(Because::Before(after)) => format!("{name}, which comes before {}", self.explain(after)),
        }
    }
}

/// Judges a claim, and gives the units that are in it for certain.
pub(super) fn judge(
    generation: &Generation,
    base: &[Value],
    units: &Units,
    shown: &Shown,
    claim: &Claim<'_>,
) -> Result<Vec<usize>, Violation> {
    assert_eq!(base.len(), claim.found.len(), "both are the whole volume");
    let count = units.all.len();
    let mut by_done: Vec<usize> = (0..count).filter(|unit| units.all[*unit].done != Tick::MAX).collect();
    by_done.sort_by_key(|unit| units.all[*unit].done);
    let mut shown_before = vec![Vec::new(); count];
    shown.iter().for_each(|(before, after)| shown_before[*after].push(*before));
    let mut prefix =
        Prefix { units, shown_before, by_done, taken_by_time: 0, why: vec![None; count], fresh: Vec::new() };

    require_durable(generation, claim, &mut prefix);
    let mut last = require_seen(base, claim, &mut prefix)?;
    prefix.close();
    while fix_zeroes(base, claim, &mut prefix, &mut last)? {
        prefix.close();
    }
    forbid(claim, &prefix)?;
    let mut edges = shown.clone();
    edges.extend(last_comes_last(base, claim, &prefix, &last)?);

    let members: Vec<bool> = (0..count).map(|unit| prefix.holds(unit)).collect();
    if let Some(cycle) = find_cycle(&units.all, &members, &edges) {
        let names: Vec<String> = cycle.iter().map(|unit| prefix.explain(*unit)).collect();
        let what =
            format!("{}: no order of the writes explains what was found: {}", claim.what, names.join(" < "));
        return Err(Violation::new(1, what));
    }
    Ok((0..count).filter(|unit| prefix.holds(*unit)).collect())
}

/// The flush that promises most, if any does: when it arrived, and when it was answered.
fn newest_flush(generation: &Generation, claim: &Claim<'_>) -> Option<(Tick, Tick)> {
    let flushed = generation.ops.iter().filter_map(|op| match (&op.request, op.outcome) {
        (Request::Flush, Outcome::Done(done)) if !claim.waived => Some((op.submit, done)),
        (Request::Stored, Outcome::Done(done)) => Some((op.submit, done)),
        _ => None,
    });
    flushed.filter(|(_, done)| *done < claim.flushed_before).max()
}

/// Whether none of these writes need be in what is claimed.
pub(super) fn promises_nothing(generation: &Generation, units: &Units, claim: &Claim<'_>) -> bool {
    let flushed = newest_flush(generation, claim).map_or(0, |(arrived, _)| arrived);
    let promised =
        |unit: &Unit| unit.done < flushed || unit.fua && !claim.waived && unit.done < claim.flushed_before;
    !units.all.iter().any(promised)
}

/// Completed FUA writes, and what had completed when a since completed flush arrived.
fn require_durable(generation: &Generation, claim: &Claim<'_>, prefix: &mut Prefix<'_>) {
    let units = prefix.units;
    let newest = newest_flush(generation, claim);
    for (unit, it) in units.all.iter().enumerate() {
        if it.fua && !claim.waived && it.done < claim.flushed_before {
            prefix.take(unit, Because::Durable(it.done));
        }
        if it.done < claim.completed_before {
            prefix.take(unit, Because::Durable(claim.completed_before));
        }
        if let Some((arrived, done)) = newest.filter(|(arrived, _)| it.done < *arrived) {
            debug_assert!(arrived < done, "an answer follows its request");
            prefix.take(unit, Because::Durable(done));
        }
    }
    claim.also.iter().for_each(|unit| prefix.take(*unit, Because::SeenEarlier));
}

/// Which unit came last in each sector, where the value names one.
fn require_seen(
    base: &[Value],
    claim: &Claim<'_>,
    prefix: &mut Prefix<'_>,
) -> Result<BTreeMap<u32, usize>, Violation> {
    let mut last = BTreeMap::new();
    for (sector, (value, base)) in (0_u32..).zip(claim.found.iter().zip(base)) {
        let Value::Write(id) = *value else { continue };
        if value == base {
            continue;
        }
        let Some(unit) = prefix.units.writer(sector, id) else {
            let what = "is neither what the generation found nor what it was asked to write there";
            return Err(Violation::new(1, format!("{}: write {id} in sector {sector} {what}", claim.what)));
        };
        last.insert(sector, unit);
        prefix.take(unit, Because::Seen(sector));
    }
    Ok(last)
}

/// Fixes the writer of zeroes where only one is possible; whether anything changed.
fn fix_zeroes(
    base: &[Value],
    claim: &Claim<'_>,
    prefix: &mut Prefix<'_>,
    last: &mut BTreeMap<u32, usize>,
) -> Result<bool, Violation> {
    let units = prefix.units;
    let mut changed = false;
    for (sector, (value, base)) in (0_u32..).zip(claim.found.iter().zip(base)) {
        if *value != Value::Zero || last.contains_key(&sector) {
            continue;
        }
        let covered = units.covering(sector).find(|unit| prefix.holds(*unit));
        if *base == Value::Zero && covered.is_none() {
            continue;
        }
        let possible = |unit: &usize| {
            let it = &units.all[*unit];
            let overwritten = |other: usize| prefix.holds(other) && it.done < units.all[other].submit;
            it.id == 0 && !it.refused && it.submit < claim.cut && !units.covering(sector).any(overwritten)
        };
        let mut candidates = units.covering(sector).filter(possible);
        match (candidates.next(), candidates.next()) {
            (None, _) => {
                let lost = covered.map_or_else(|| format!("{base:?} of before"), |unit| prefix.explain(unit));
                let what = format!("{}: sector {sector} is zeroes instead of {lost}", claim.what);
                return Err(Violation::new(1, what));
            }
            (Some(only), None) => {
                last.insert(sector, only);
                prefix.take(only, Because::Seen(sector));
                changed = true;
            }
            (Some(_), Some(_)) => {}
        }
    }
    Ok(changed)
}

/// What can not be in the prefix is not.
fn forbid(claim: &Claim<'_>, prefix: &Prefix<'_>) -> Result<(), Violation> {
    for (unit, it) in prefix.units.all.iter().enumerate().filter(|(unit, _)| prefix.holds(*unit)) {
        if it.refused {
            let what = format!("{}: it was answered with an error, but is applied", prefix.explain(unit));
            return Err(Violation::new(1, format!("{}: {what}", claim.what)));
        }
        if it.submit > claim.cut {
            let what = format!("asked after the log was cut at tick {}", claim.cut);
            return Err(Violation::new(9, format!("{}: {}: {what}", claim.what, prefix.explain(unit))));
        }
    }
    Ok(())
}

/// Every unit of the prefix that covers a sector comes before the one that was found there.
fn last_comes_last(
    base: &[Value],
    claim: &Claim<'_>,
    prefix: &Prefix<'_>,
    last: &BTreeMap<u32, usize>,
) -> Result<Vec<(usize, usize)>, Violation> {
    let mut edges = Vec::new();
    for (sector, (value, base)) in (0_u32..).zip(claim.found.iter().zip(base)) {
        let mut inside = prefix.units.covering(sector).filter(|unit| prefix.holds(*unit));
        match last.get(&sector) {
            Some(&last) => edges.extend(inside.filter(|unit| *unit != last).map(|unit| (unit, last))),
            // Zeroes with more than one possible writer: judged as far as they can be.
            None if *value == Value::Zero => {}
            None => {
                debug_assert_eq!(value, base, "a value that is nobody's was refused before");
                if let Some(lost) = inside.next() {
                    let what = format!("sector {sector} is as before, without {}", prefix.explain(lost));
                    return Err(Violation::new(1, format!("{}: {what}", claim.what)));
                }
            }
        }
    }
    edges.sort_unstable();
    edges.dedup();
    Ok(edges)
}
