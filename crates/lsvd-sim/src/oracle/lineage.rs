//! Which opening goes on from which: the one before it, but where a journal was given up, or came back.
//!
//! Giving a journal up may take more than the writes of the opening before: what that opening took out of the journal may
//! not have been in the store either. And a journal that was given up may be accepted once more, as long as nothing
//! that anybody wrote since is in the log. So an opening is explained by a prefix of the writes of the nearest opening
//! before it that can explain it, and those in between must have promised nothing. Knows no sectors: `prefix` does.

use super::Violation;
use super::prefix::{self, Claim};
use super::reads::{self, Shown};
use super::units::Units;
use crate::history::{Generation, NEVER, Outcome, Request, Sighting, Tick};
use crate::sector::Value;

/// Units that are in the store for good, and since when.
type Stored = (Tick, Vec<usize>);

struct Lineage<'a> {
    generations: &'a [&'a Generation],
    abandoned: &'a [u64],
    units: Vec<Units>,
    shown: Vec<Shown>,
    stored: Vec<Vec<Stored>>,
    /// Openings that were explained by this one, and that took part of what they found out of a journal.
    heirs: Vec<Vec<usize>>,
}

/// Whose finding is judged.
#[derive(Clone, Copy)]
enum Finder<'a> {
    /// An opening for writing.
    Opening(usize),
    /// A read-only one while this generation was the newest.
    Reader(usize, &'a Sighting),
}

fn found(generation: &Generation) -> &[Value] {
    generation.found.as_deref().expect("only generations with a sighting are judged")
}

/// Judges generations in the order of their epochs; the first one is the empty volume.
pub(super) fn judge(generations: &[&Generation], abandoned: &[u64]) -> Result<(), Violation> {
    let units: Vec<Units> =
        generations.iter().map(|generation| Units::of(generation, found(generation))).collect();
    let shown = generations.iter().zip(&units);
    let shown = shown.map(|(generation, units)| reads::judge(generation, found(generation), units));
    let shown = shown.collect::<Result<_, _>>()?;
    let (stored, heirs) = (vec![Vec::new(); units.len()], vec![Vec::new(); units.len()]);
    let mut lineage = Lineage { generations, abandoned, units, shown, stored, heirs };
    for (at, generation) in generations.iter().enumerate() {
        if at > 0 {
            lineage.explain(Finder::Opening(at))?;
        }
        for sighting in &generation.sightings {
            lineage.explain(Finder::Reader(at, sighting))?;
        }
    }
    Ok(())
}

impl Lineage<'_> {
    /// Finds the opening whose writes explain what was found.
    fn explain(&mut self, finder: Finder<'_>) -> Result<(), Violation> {
        if let Finder::Opening(at) = finder
            && self.generations[at].turned
        {
            return Ok(());
        }
        let newest = match finder {
            Finder::Opening(at) => at - 1,
            Finder::Reader(at, _) => at,
        };
        let (mut fits, mut why) = (Vec::new(), None);
        for on in (0..=newest).rev() {
            if on == newest || self.may_go_on_from(on, newest, finder) {
                match self.judge_on(on, finder, &[]) {
                    Ok(units) => fits.push((on, units)),
                    Err(violation) => why = why.or(Some(violation)),
                }
            }
            // A snapshot is its own writer's.
            let own = matches!(finder, Finder::Reader(_, sighting) if sighting.completed);
            if own || self.generations[on].turned || self.has_promised(on, finder) {
                break;
            }
        }
        match (fits.pop(), fits.is_empty()) {
            (Some((on, units)), true) => self.accept(on, finder, units),
            // Zeroes, say, that one opening found and the next one made: which of them it was is not known, and nothing is
            // concluded from it.
            (Some(_), false) => Ok(()),
            (None, _) => why.map_or(Ok(()), Err),
        }
    }

    fn judge_on(&self, on: usize, finder: Finder<'_>, also: &[usize]) -> Result<Vec<usize>, Violation> {
        let generation = self.generations[on];
        let also: Vec<usize> =
            self.stored_before(on, finder).flat_map(|(_, units)| units).chain(also).copied().collect();
        let claim = self.claim(on, finder, &also);
        prefix::judge(generation, found(generation), &self.units[on], &self.shown[on], &claim)
    }

    fn claim<'b>(&'b self, on: usize, finder: Finder<'b>, also: &'b [usize]) -> Claim<'b> {
        let of = self.generations[on].epoch;
        let (what, found, cut, flushed_before) = match finder {
            Finder::Reader(_, sighting) if sighting.completed => {
                let what = format!("a snapshot that was made in epoch {of}");
                (what, &sighting.values[..], sighting.until, sighting.from)
            }
            Finder::Opening(at) => {
                let it = self.generations[at];
                let what = format!("the opening of epoch {} after epoch {of}", it.epoch);
                (what, found(it), it.opened, NEVER)
            }
            Finder::Reader(_, sighting) => {
                let what = format!("a read-only opening during epoch {of}");
                (what, &sighting.values[..], sighting.until, sighting.from)
            }
        };
        let completed_before = match finder {
            Finder::Reader(_, sighting) if sighting.completed => sighting.from,
            Finder::Opening(at) if self.is_handed_over(on, at) => NEVER,
            _ => 0,
        };
        Claim { what, found, cut, flushed_before, completed_before, waived: self.is_waived(on, finder), also }
    }

    fn stored_before<'b>(&'b self, on: usize, finder: Finder<'b>) -> impl Iterator<Item = &'b Stored> {
        let before = match finder {
            Finder::Opening(_) => NEVER,
            Finder::Reader(_, sighting) => sighting.from,
        };
        self.stored[on].iter().filter(move |(since, _)| *since < before)
    }

    /// Whether an opening has the journal of another one as that one's process left it: with all that was answered.
    fn is_handed_over(&self, on: usize, at: usize) -> bool {
        let (before, after) = (self.generations[on], self.generations[at]);
        before.journal.is_some()
            && before.journal == after.journal
            && before.boot.is_some()
            && before.boot == after.boot
    }

    /// Whether the finder need not find what only the journal of an opening promised.
    fn is_waived(&self, on: usize, finder: Finder<'_>) -> bool {
        let generation = self.generations[on];
        match finder {
            _ if generation.journal.is_none() => false,
            // Readers see the store alone.
            Finder::Reader(..) => true,
            // Who has the same journal has all that it holds, whatever others gave up.
            Finder::Opening(at) if self.generations[at].journal == generation.journal => false,
            Finder::Opening(at) => self.was_abandoned(generation.epoch, self.generations[at].epoch),
        }
    }

    /// Whether a journal was given up by an epoch after `after`, up to `until`.
    fn was_abandoned(&self, after: u64, until: u64) -> bool {
        self.abandoned.iter().any(|epoch| after < *epoch && *epoch <= until)
    }

    /// Whether a finder may go on from an opening before the newest, as if those in between had never been.
    fn may_go_on_from(&self, on: usize, newest: usize, finder: Finder<'_>) -> bool {
        let epoch = self.generations[on].epoch;
        match finder {
            Finder::Opening(at) => self.was_abandoned(epoch, self.generations[at].epoch),
            Finder::Reader(..) => {
                let mut between = self.generations[on + 1..=newest].iter();
                between.any(|generation| generation.replayed) || self.was_abandoned(epoch, u64::MAX)
            }
        }
    }

    /// Whether a finder must find something of what this opening wrote, or took out of its journal.
    fn has_promised(&self, on: usize, finder: Finder<'_>) -> bool {
        let claim = self.claim(on, finder, &[]);
        self.is_settled(on, finder)
            || !prefix::promises_nothing(self.generations[on], &self.units[on], &claim)
            || self.stored_before(on, finder).any(|(_, units)| !units.is_empty())
    }

    /// Whether the store is known to have had all that this opening found, and more.
    fn is_settled(&self, on: usize, finder: Finder<'_>) -> bool {
        let before = match finder {
            Finder::Opening(_) => NEVER,
            Finder::Reader(_, sighting) => sighting.from,
        };
        let generation = self.generations[on];
        generation.replayed
            && generation.ops.iter().any(|op| match (&op.request, op.outcome) {
                (Request::Stored, Outcome::Done(done)) => done < before,
                _ => false,
            })
    }

    /// Takes what was found for a prefix of the writes of the opening `on`.
    fn accept(&mut self, on: usize, finder: Finder<'_>, units: Vec<usize>) -> Result<(), Violation> {
        // Of two prefixes of one order one holds the other.
        for heir in &self.heirs[on] {
            let theirs = self.judge_on(on, Finder::Opening(*heir), &[])?;
            self.judge_on(on, finder, &theirs)
                .or_else(|_| self.judge_on(on, Finder::Opening(*heir), &units))?;
        }
        match finder {
            Finder::Opening(at) if self.generations[at].replayed => self.heirs[on].push(at),
            Finder::Opening(at) => self.stored[on].push((self.generations[at].opened, units)),
            Finder::Reader(_, sighting) => self.stored[on].push((sighting.until, units)),
        }
        Ok(())
    }
}
