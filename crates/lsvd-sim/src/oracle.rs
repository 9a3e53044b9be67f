//! The judge: does one order of the accepted writes, and a prefix of it at each crash, explain what was seen?
//!
//! Knows only a [`History`]. The unit of judgement is one write's part of one block, because rule 1 lets a write
//! tear at block boundaries and nowhere else. Every violation that it reports is one; what it can not see is in
//! docs/simulation.md. Rooms: `units` (what was written where), `prefix` (what a crash left), `reads` (what clients
//! saw while the volume was open), `lineage` (which opening goes on from which, where journals are given up).
//!
//! What a flush or FUA promises, an opening must hold, unless a journal answered it and that journal was given up in
//! between: then what the store is known to have had stays promised (a clean close, a lag of nothing, what a reader of
//! the store saw), and one order with one prefix still has to explain what is left.

mod lineage;
mod order;
mod prefix;
mod reads;
mod units;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::history::{Generation, History, Request};
use crate::sector::Value;

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
        let idle = generation.ops.iter().all(|op| matches!(op.request, Request::Flush | Request::Stored));
        assert!(generation.found.is_some() || idle, "clients begin after the sighting");
        generation.found.is_some()
    });
    let empty =
        Generation { found: Some(vec![Value::Zero; history.sectors as usize]), ..Generation::default() };
    generations.insert(0, &empty);
    lineage::judge(&generations, &history.abandoned)
}
