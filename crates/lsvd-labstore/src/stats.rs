//! What was asked and answered: requests and bytes by verb and outcome, and how many at once.
//!
//! Counts and decides nothing. Invariant: every request that began ends in exactly one outcome, also where its client
//! left or its connection was cut.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::objects::Objects;
use crate::request::Verb;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Status(u16),
    Reset,
    AnswerLost,
    Truncated,
    ClientLeft,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Status(status) => write!(f, "{status}"),
            Outcome::Reset => f.write_str("reset"),
            Outcome::AnswerLost => f.write_str("answer-lost"),
            Outcome::Truncated => f.write_str("truncated"),
            Outcome::ClientLeft => f.write_str("client-left"),
        }
    }
}

/// Counters of one verb.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerbStats {
    /// Requests that ended.
    pub requests: u64,
    /// Bytes of bodies that came.
    pub bytes_in: u64,
    /// Bytes of bodies that went.
    pub bytes_out: u64,
    /// Requests by how they ended: an HTTP status, `reset`, `answer-lost`, `truncated`, or `client-left` before there
    /// was an answer.
    pub outcomes: BTreeMap<String, u64>,
}

/// What was counted since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// By verb, those that were asked at all.
    pub verbs: BTreeMap<Verb, VerbStats>,
    /// Requests that have not ended.
    pub in_flight: u64,
    /// The most of them at once.
    pub in_flight_max: u64,
    /// Objects that are stored.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
}

impl Stats {
    /// The counters of one verb.
    pub fn of(&self, verb: Verb) -> VerbStats {
        self.verbs.get(&verb).cloned().unwrap_or_default()
    }

    /// How often requests of one verb ended so.
    pub fn outcome(&self, verb: Verb, outcome: &str) -> u64 {
        self.verbs.get(&verb).and_then(|stats| stats.outcomes.get(outcome)).copied().unwrap_or(0)
    }
}

#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    bytes_in: u64,
    bytes_out: u64,
    outcomes: BTreeMap<Outcome, u64>,
}

#[derive(Debug, Default)]
struct State {
    verbs: BTreeMap<Verb, Counts>,
    in_flight: u64,
    in_flight_max: u64,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<State>);

impl Counters {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>, verb: Verb) -> Tally {
        let mut state = self.lock();
        state.in_flight += 1;
        state.in_flight_max = state.in_flight_max.max(state.in_flight);
        Tally { counters: Arc::clone(self), verb, outcome: Outcome::ClientLeft, bytes_in: 0, bytes_out: 0 }
    }

    pub(crate) fn read(&self, objects: &Objects) -> Stats {
        let (objects, object_bytes) = objects.count();
        let state = self.lock();
        let verbs = state.verbs.iter().map(|(verb, counts)| {
            let outcomes = counts.outcomes.iter().map(|(outcome, n)| (outcome.to_string(), *n)).collect();
            let Counts { requests, bytes_in, bytes_out, .. } = *counts;
            (*verb, VerbStats { requests, bytes_in, bytes_out, outcomes })
        });
        Stats {
            verbs: verbs.collect(),
            in_flight: state.in_flight,
            in_flight_max: state.in_flight_max,
            objects,
            object_bytes,
        }
    }

    pub(crate) fn reset(&self) {
        let mut state = self.lock();
        state.verbs.clear();
        state.in_flight_max = state.in_flight;
    }
}

/// One request's account; settled when it is dropped.
#[derive(Debug)]
pub(crate) struct Tally {
    counters: Arc<Counters>,
    verb: Verb,
    pub(crate) outcome: Outcome,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Drop for Tally {
    fn drop(&mut self) {
        let mut state = self.counters.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        let counts = state.verbs.entry(self.verb).or_default();
        counts.requests += 1;
        counts.bytes_in += self.bytes_in;
        counts.bytes_out += self.bytes_out;
        *counts.outcomes.entry(self.outcome).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_ends_in_one_outcome() {
        let counters = Arc::new(Counters::default());
        let mut first = counters.begin(Verb::Put);
        let second = counters.begin(Verb::Put);
        (first.outcome, first.bytes_in) = (Outcome::Status(200), 7);
        drop(first);
        let stats = counters.read(&Objects::default());
        assert_eq!((stats.in_flight, stats.in_flight_max), (1, 2));
        drop(second);
        let stats = counters.read(&Objects::default());
        assert_eq!(stats.of(Verb::Put).bytes_in, 7);
        assert_eq!((stats.outcome(Verb::Put, "200"), stats.outcome(Verb::Put, "client-left")), (1, 1));
        counters.reset();
        assert_eq!(counters.read(&Objects::default()), Stats::default());
    }
}
