//! What all parts of one run share: the clock's reading, the count of events, the trace and the first accusation.
//!
//! Knows no plot. Invariant: nothing in a run reads a real clock or a real source of randomness.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::history::Tick;
use crate::oracle::Violation;
use crate::trace::Trace;

/// Wall-clock time at the start of every run: 2026-01-01.
const START_UNIX_MS: u64 = 1_767_225_600_000;

/// The shared part of a run.
#[derive(Debug)]
pub(crate) struct Stage {
    start: Instant,
    tick: Mutex<Tick>,
    trace: Mutex<Trace>,
    accused: Mutex<Option<Violation>>,
}

/// A lock that a panic elsewhere does not make unusable: the panic itself is reported.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    /// A stage whose time begins now. Needs a runtime with a paused clock.
    pub(crate) fn new(keep_lines: bool) -> Self {
        Self {
            start: Instant::now(),
            tick: Mutex::new(0),
            trace: Mutex::new(Trace::new(keep_lines)),
            accused: Mutex::new(None),
        }
    }

    /// Virtual milliseconds since the start.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).expect("a run does not last for ever")
    }

    /// What a wall clock shows that goes `ahead_ms` before the others.
    pub(crate) fn unix_ms(&self, ahead_ms: u64) -> u64 {
        START_UNIX_MS + self.now_ms() + ahead_ms
    }

    /// A tick of its own for the event that happens now.
    pub(crate) fn tick(&self) -> Tick {
        let mut tick = lock(&self.tick);
        *tick += 1;
        *tick
    }

    /// Adds a line to the trace.
    pub(crate) fn event(&self, what: fmt::Arguments<'_>) {
        let now_ms = self.now_ms();
        lock(&self.trace).event(now_ms, what);
    }

    /// Records a violation, unless there is one already: what follows from the first is not interesting.
    pub(crate) fn accuse(&self, violation: Violation) {
        self.event(format_args!("VIOLATION {violation}"));
        lock(&self.accused).get_or_insert(violation);
    }

    /// The first violation so far.
    pub(crate) fn accused(&self) -> Option<Violation> {
        lock(&self.accused).clone()
    }

    /// Takes the trace off a stage on which nothing happens any more.
    pub(crate) fn take_trace(&self) -> Trace {
        std::mem::replace(&mut *lock(&self.trace), Trace::new(false))
    }
}
