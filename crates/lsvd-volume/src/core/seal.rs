//! Gives what was accepted so far its number at once, in one volume or in several.
//!
//! Knows the lock around the engine. Invariant: of several volumes all are locked while any of them is sealed, so a write that
//! completed in one before another was begun in any is in if the other one is.

use std::sync::Arc;

use lsvd_engine::{Event, Now};
use lsvd_format::SequenceNumber;

use super::{Core, State};

impl Core {
    /// Seals all that was accepted so far: the number of the last object which holds it.
    pub(crate) fn seal_all(self: &Arc<Self>) -> SequenceNumber {
        let now = self.now();
        let mut state = self.lock();
        let number = seal(&mut state, now);
        let actions = self.drain(&mut state);
        drop(state);
        self.act(actions);
        number
    }

    /// The same for several volumes at one moment. They are different ones, and all callers have them in one order: they are
    /// locked in it.
    pub(crate) fn seal_all_of(cores: &[Arc<Self>]) -> Vec<SequenceNumber> {
        let mut locked: Vec<_> = cores.iter().map(|core| (core, core.now(), core.lock())).collect();
        let numbers = locked.iter_mut().map(|(_, now, state)| seal(state, *now)).collect();
        let drained = locked.iter_mut().map(|(core, _, state)| core.drain(state));
        let actions: Vec<_> = drained.collect();
        drop(locked);
        for (core, actions) in cores.iter().zip(actions) {
            core.act(actions);
        }
        numbers
    }
}

fn seal(state: &mut State, now: Now) -> SequenceNumber {
    let number = state.engine.seal_all(now);
    state.engine.handle(now, Event::Tick); // which asks for its upload
    number
}
