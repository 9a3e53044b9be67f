//! How much is on the way at once: as much as the store and the way to it can take.
//!
//! Additive increase, multiplicative decrease after a slow start (Jacobson, Congestion avoidance and control, 1988), as
//! TCP does it, with a request's time as a second sign besides its loss. Knows nothing of what is asked. A line that is
//! too slow for all uploads at once would time all of them out, again and again: the few that are left get through.
//! Invariants: one request may always go, however large; turns are taken in the order of asking; requests that were on
//! the way together are one sign of congestion, not many.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// What is counted: a request is one unit, and one more for each of these in its body.
const UNIT_BYTES: u64 = 64 << 10;

/// What one request counts at most, and the least that may be on the way at once: a log object of the default size.
const REQUEST_UNITS_MAX: u32 = 128;

/// The most that is on the way at once, 256 MiB: more than any caller has in flight by default.
const AT_ONCE_MAX: u32 = 4096;

/// One kind of request of one store.
#[derive(Debug)]
pub(crate) struct Pace {
    permits: Semaphore,
    /// A request that took longer says that too much was on the way; one that took half of it, that no more should be.
    slow: Duration,
    state: Mutex<State>,
}

/// All in units.
#[derive(Debug)]
struct State {
    /// How much may be on the way at once.
    at_once: u32,
    /// Up to here each success makes room for as much again: nothing speaks against it yet.
    known_good: u32,
    /// Permits that are still held and are to vanish when they are given back.
    surplus: u32,
    in_flight: u32,
    /// Successes since the last change.
    good: u32,
    /// How often it slowed down: what began before the last time is no news.
    generation: u64,
}

/// The right to make one request; given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pace: &'a Pace,
    units: u32,
    permit: Option<SemaphorePermit<'a>>,
    generation: u64,
}

impl Pace {
    /// Begins with `first_bytes` at once.
    pub(crate) fn new(first_bytes: u64, slow: Duration) -> Self {
        let first = u32::try_from(first_bytes / UNIT_BYTES).unwrap_or(AT_ONCE_MAX);
        let at_once = first.clamp(REQUEST_UNITS_MAX, AT_ONCE_MAX);
        let known_good = AT_ONCE_MAX;
        let state = State { at_once, known_good, surplus: 0, in_flight: 0, good: 0, generation: 0 };
        Pace { permits: Semaphore::new(at_once as usize), slow, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to make one request with a body of `body_bytes`.
    pub(crate) async fn turn(&self, body_bytes: u64) -> Turn<'_> {
        let units = u32::try_from(1 + body_bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(REQUEST_UNITS_MAX);
        // Never closed, and never more than there is at least: the permits come in the end.
        let permit = self.permits.acquire_many(units).await.ok();
        let mut state = self.lock();
        state.in_flight += units;
        Turn { pace: self, units, permit, generation: state.generation }
    }
}

impl Turn<'_> {
    /// The request was answered after `took`: as much quick success as goes at once makes room for more.
    pub(crate) fn answered(&self, took: Duration) {
        if took > self.pace.slow {
            return self.overloaded();
        }
        let mut state = self.pace.lock();
        // Where little was asked, that little came back quickly says nothing of more.
        if took > self.pace.slow / 2 || state.in_flight < state.at_once / 2 {
            return;
        }
        let more = if state.at_once < state.known_good {
            self.units
        } else {
            state.good += self.units;
            if state.good < state.at_once {
                return;
            }
            REQUEST_UNITS_MAX
        };
        state.good = 0;
        let more = more.min(AT_ONCE_MAX - state.at_once);
        state.at_once += more;
        let paid = more.min(state.surplus);
        state.surplus -= paid;
        self.pace.permits.add_permits((more - paid) as usize);
    }

    /// The request timed out or was throttled: half as much as was on the way goes from now on.
    pub(crate) fn overloaded(&self) {
        let mut state = self.pace.lock();
        if self.generation != state.generation {
            return;
        }
        state.generation += 1;
        state.good = 0;
        let at_once = (state.at_once.min(state.in_flight) / 2).max(REQUEST_UNITS_MAX);
        let fewer = state.at_once - at_once;
        state.at_once = at_once;
        state.known_good = at_once;
        if fewer > 0 {
            let idle = self.pace.permits.forget_permits(fewer as usize);
            state.surplus += fewer - u32::try_from(idle).unwrap_or(fewer);
            let at_once_bytes = u64::from(at_once) * UNIT_BYTES;
            tracing::info!(at_once_bytes, "the store or the way to it can not keep up: less at once");
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.pace.lock();
        state.in_flight -= self.units;
        let gone = self.units.min(state.surplus);
        state.surplus -= gone;
        if let Some(gone) = self.permit.as_mut().and_then(|permit| permit.split(gone as usize)) {
            gone.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const SLOW: Duration = Duration::from_secs(15);
    /// A body that counts [`REQUEST_UNITS_MAX`].
    const OBJECT_BYTES: u64 = 8 << 20;

    fn objects(pace: &Pace, count: usize) -> Vec<Turn<'_>> {
        (0..count).map(|_| pace.turn(OBJECT_BYTES).now_or_never().expect("a turn is free")).collect()
    }

    /// How many objects may go at once.
    fn at_once(pace: &Pace) -> u32 {
        pace.lock().at_once / REQUEST_UNITS_MAX
    }

    #[test]
    fn what_was_on_the_way_together_halves_once() {
        let pace = Pace::new(16 * OBJECT_BYTES, SLOW);
        let mut on_the_way = objects(&pace, 16);
        on_the_way.iter().for_each(Turn::overloaded);
        assert_eq!(at_once(&pace), 8);
        // Sixteen are still on the way: nobody else goes before nine of them are back.
        on_the_way.truncate(8);
        assert!(pace.turn(OBJECT_BYTES).now_or_never().is_none());
        on_the_way.pop();
        let _one = pace.turn(OBJECT_BYTES).now_or_never().expect("the ninth is back");
        assert!(pace.turn(0).now_or_never().is_none());
    }

    #[test]
    fn one_always_goes_and_successes_make_room_again() {
        let pace = Pace::new(16 * OBJECT_BYTES, SLOW);
        for _ in 0..20 {
            objects(&pace, 1).iter().for_each(Turn::overloaded);
        }
        assert_eq!(at_once(&pace), 1);
        let mut successes = 0;
        while at_once(&pace) < 16 {
            let together = objects(&pace, at_once(&pace) as usize);
            together[0].answered(SLOW / 3);
            successes += 1;
        }
        assert_eq!(successes, (1..16).sum::<u32>(), "one round of what goes at once for each further one");
        drop(objects(&pace, 16));
        assert_eq!(pace.permits.available_permits(), 16 * REQUEST_UNITS_MAX as usize);
    }

    #[test]
    fn it_starts_low_and_doubles_with_every_round_until_answers_take_long() {
        let pace = Pace::new(2 * OBJECT_BYTES, SLOW);
        objects(&pace, 2).iter().for_each(|turn| turn.answered(SLOW / 10));
        objects(&pace, 4).iter().for_each(|turn| turn.answered(SLOW / 10));
        assert_eq!(at_once(&pace), 8);
        objects(&pace, 8).iter().for_each(|turn| turn.answered(SLOW * 2 / 3));
        assert_eq!(at_once(&pace), 8, "slower is no reason for more");
        objects(&pace, 8).iter().for_each(|turn| turn.answered(SLOW * 2));
        assert_eq!(at_once(&pace), 4);
        objects(&pace, 4).iter().for_each(|turn| turn.answered(SLOW / 10));
        assert_eq!(at_once(&pace), 5, "from here on with care");
    }

    #[test]
    fn little_that_comes_back_quickly_says_nothing_of_much() {
        let pace = Pace::new(2 * OBJECT_BYTES, SLOW);
        for _ in 0..1000 {
            let turn = pace.turn(4096).now_or_never().expect("a turn is free");
            turn.answered(SLOW / 1000);
        }
        assert_eq!(at_once(&pace), 2);
    }

    #[test]
    fn room_that_comes_back_while_too_much_is_on_the_way_is_not_given_twice() {
        let pace = Pace::new(4 * OBJECT_BYTES, SLOW);
        let many = objects(&pace, 4);
        many[0].overloaded();
        assert_eq!(at_once(&pace), 2);
        many[..2].iter().for_each(|turn| turn.answered(SLOW / 10));
        assert_eq!(at_once(&pace), 3);
        drop(many);
        assert_eq!(pace.permits.available_permits(), 3 * REQUEST_UNITS_MAX as usize);
    }
}
