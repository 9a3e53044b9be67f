//! The judge: does one order of the accepted writes, and a prefix of it at each crash, explain what was seen?
//!
//! Knows only a [`History`]. The unit of judgement is one write's part of one block, because rule 1 lets a write
//! tear at block boundaries and nowhere else. Every violation that it reports is one; what it can not see is in
//! docs/simulation.md. Rooms: `units` (what was written where), `prefix` (what a crash left), `reads` (what clients
//! saw while the volume was open).

mod order;
mod prefix;
mod reads;
mod units;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::history::{Generation, History, NEVER, Request};
use crate::sector::Value;
use units::Units;

/// A broken rule, with what shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule's number.
    pub rule: u8,
    /// What happened, for a person.
    pub what: String,
}

impl Violation {
    /// `what` broke `rule`.
    pub fn new(rule: u8, what: impl Into<String>) -> Self {
        Self { rule, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: {}", self.rule, self.what)
    }
}

/// Judges a whole history.
///
/// # Errors
/// The first violation found.
pub fn judge(history: &History) -> Result<(), Violation> {
    let mut generations: Vec<&Generation> = history.generations.iter().collect();
    generations.sort_by_key(|generation| generation.epoch);
    if let Some(twice) = generations.windows(2).find(|pair| pair[0].epoch == pair[1].epoch) {
        return Err(Violation::new(2, format!("epoch {} was begun twice", twice[0].epoch)));
    }
    // An opening that never got as far as reading the volume let no client write: it changed nothing.
    generations.retain(|generation| {
        let idle = generation.ops.iter().all(|op| op.request == Request::Flush);
        assert!(generation.found.is_some() || idle, "clients begin after the sighting");
        generation.found.is_some()
    });
    if let Some(first) = generations.first() {
        let empty =
            Generation { found: Some(vec![Value::Zero; history.sectors as usize]), ..Generation::default() };
        judge_generation(&empty, Some(first))?;
    }
    for (i, generation) in generations.iter().enumerate() {
        judge_generation(generation, generations.get(i + 1).copied())?;
    }
    Ok(())
}

/// Judges one generation by its own reads, by what read-only openings saw of it, and by what the next one found.
fn judge_generation(generation: &Generation, next: Option<&Generation>) -> Result<(), Violation> {
    let base = generation.found.as_deref().expect("only generations with a sighting are judged");
    let units = Units::of(generation, base);
    let shown = reads::judge(generation, base, &units)?;
    let mut durable = Vec::new();
    for sighting in &generation.sightings {
        let claim = prefix::Claim {
            what: format!("a read-only opening during epoch {}", generation.epoch),
            found: &sighting.values,
            cut: sighting.until,
            flushed_before: sighting.from,
            also: &[],
        };
        durable.extend(prefix::judge(generation, base, &units, &shown, &claim)?);
    }
    if let Some(next) = next {
        let claim = prefix::Claim {
            what: format!("the opening of epoch {} after epoch {}", next.epoch, generation.epoch),
            found: next.found.as_deref().expect("only generations with a sighting are judged"),
            cut: next.opened,
            flushed_before: NEVER,
            also: &durable,
        };
        prefix::judge(generation, base, &units, &shown, &claim)?;
    }
    Ok(())
}
