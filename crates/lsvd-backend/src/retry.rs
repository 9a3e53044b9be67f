//! When to try again, and when to give up.
//!
//! Knows no stores: it is handed failures that are already sorted. Uses tokio's clock only, so that a paused clock
//! drives it, and draws jitter from a seeded sequence, so that a simulated world repeats. Invariants: every attempt
//! ends within `attempt_timeout` and what its bytes may take; no attempt begins after `total_limit`, nor before the time
//! that the store asked to be left alone (a quarter of the limit at most); only [`FailureKind::Unavailable`] and
//! [`FailureKind::Overloaded`] are tried again, and [`FailureKind::Expired`] where credentials can be renewed that were good
//! before.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::classify::{Answer, Failure, FailureKind};
use crate::error::{Error, Site};
use crate::pace::Pace;
use crate::pulse::Watch;

/// How long to wait for a store, how often to ask again, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The longest that one request may take, and a second more for each 128 KiB (1 Mbit/s) of its body. Default 30 s:
    /// a store that has not answered by then usually never does.
    pub attempt_timeout: Duration,
    /// The longest that an operation may take, all its attempts and pauses together. A listing has it anew whenever
    /// it gets further. Default 120 s: most stores are back after a restart or a failover by then, and it is well
    /// below the time after which administrators and hung-task watchdogs lose their patience.
    pub total_limit: Duration,
    /// The pause after the first failure, before jitter; each following one is twice as long. Default 100 ms: about
    /// one request's time, so that a single dropped connection costs little.
    pub backoff_first: Duration,
    /// How many bytes of PUTs are on the way at once before anything is known of the line; twice as many with every
    /// round that is answered quickly. Default 16 MiB: two log objects pass a line of 4 Mbit/s within the half minute.
    pub puts_first_bytes: u64,
    /// The same for GETs. Default 32 MiB: mostly far less is asked for at once.
    pub gets_first_bytes: u64,
    /// The longest pause before jitter. Default 5 s: service resumes that soon after the store is back.
    pub backoff_max: Duration,
}

/// Bytes per second that a request's body moves at least: below 1 Mbit/s a line is taken for broken.
const BODY_BYTES_PER_SECOND_MIN: u64 = 128 << 10;

/// The longest pause that a store is granted by its Retry-After, and as a part of the total limit: a store may well be
/// back before that, and the client is to have another attempt in any case.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
const RETRY_AFTER_PART: u32 = 4;

/// How many failures of one operation are no news; the next ones are told, ever more rarely.
const QUIET_ATTEMPTS: u32 = 3;

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempt_timeout: Duration::from_secs(30),
            total_limit: Duration::from_secs(120),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            puts_first_bytes: 16 << 20,
            gets_first_bytes: 32 << 20,
        }
    }
}

/// A sequence of pseudo-random numbers, shared by the clones of a bucket. Spreads retries; nothing secret hangs on it.
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Jitter(AtomicU64::new(seed))
    }

    /// A seed that differs from host to host, so that those who lost the same store do not come back in step.
    pub(crate) fn ambient() -> Self {
        // Without randomness the retries are merely in step, which is no reason to fail.
        Jitter::new(getrandom::u64().unwrap_or(0))
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn next(&self) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between half of the pause and the whole of it.
    fn spread(&self, pause: Duration) -> Duration {
        let half = pause / 2;
        half + self.below(half)
    }

    fn below(&self, most: Duration) -> Duration {
        let most_nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.next() % most_nanos.saturating_add(1))
    }
}

/// How the store and these credentials stand to each other.
#[derive(Debug)]
pub(crate) struct Standing {
    /// They may be renewed while they are in use.
    renewable: bool,
    /// The store has done what was asked with them.
    accepted: AtomicBool,
}

impl Standing {
    pub(crate) fn new(renewable: bool) -> Self {
        Standing { renewable, accepted: AtomicBool::new(false) }
    }

    fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    /// Whether it is worth waiting until they are renewed. Those that were never good are better told at once.
    fn waits(&self) -> bool {
        self.renewable && self.accepted.load(Ordering::Relaxed)
    }
}

/// The attempts at one operation.
pub(crate) struct Attempts<'a> {
    policy: RetryPolicy,
    jitter: &'a Jitter,
    standing: &'a Standing,
    watch: Watch<'a>,
    at: Site,
    started: Instant,
    /// Since when the total limit runs: the start, or the last progress.
    limited_since: Instant,
    made: u32,
    pause_next: Duration,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(
        policy: RetryPolicy,
        (jitter, standing): (&'a Jitter, &'a Standing),
        watch: Watch<'a>,
        at: Site,
    ) -> Self {
        let now = Instant::now();
        Attempts {
            policy,
            jitter,
            standing,
            watch,
            at,
            started: now,
            limited_since: now,
            made: 0,
            pause_next: policy.backoff_first.min(policy.backoff_max),
        }
    }

    /// Waits for a request, but not longer than one attempt with a body of `body_bytes` may take.
    ///
    /// When time is up the request is dropped; the store may carry it out all the same.
    pub(crate) async fn one<T>(
        &mut self,
        body_bytes: u64,
        request: impl Future<Output = Result<T, Answer>>,
    ) -> Result<T, Answer> {
        self.made += 1;
        self.within(body_bytes, request).await
    }

    /// As [`Attempts::one`], when it is this request's turn; the wait for that is not counted.
    pub(crate) async fn one_in_turn<T>(
        &mut self,
        pace: &Pace,
        body_bytes: u64,
        request: impl Future<Output = Result<T, Answer>>,
    ) -> Result<T, Answer> {
        let asked = Instant::now();
        let turn = pace.turn(body_bytes).await;
        let begun = Instant::now();
        self.limited_since += begun - asked;
        let result = self.one(body_bytes, request).await;
        match &result {
            // Where nothing at all is answered, less of it would not be either.
            Err(Answer::Failed(Failure { kind: FailureKind::Overloaded, .. })) => {
                if !self.watch.is_silent() {
                    turn.overloaded();
                }
            }
            Err(Answer::Failed(_)) => {}
            Ok(_) | Err(Answer::Absent | Answer::Exists) => turn.answered(begun.elapsed()),
        }
        result
    }

    /// As [`Attempts::one`], for a further piece of the same attempt.
    pub(crate) async fn within<T>(
        &mut self,
        body_bytes: u64,
        request: impl Future<Output = Result<T, Answer>>,
    ) -> Result<T, Answer> {
        let left = self.policy.total_limit.saturating_sub(self.limited_since.elapsed());
        let body = Duration::from_millis(body_bytes.saturating_mul(1000) / BODY_BYTES_PER_SECOND_MIN);
        let limit = self.policy.attempt_timeout.saturating_add(body).min(left);
        match timeout(limit, self.watch.over(request)).await {
            Ok(Some(answer)) => {
                if !matches!(answer, Err(Answer::Failed(_))) {
                    self.standing.accept();
                }
                answer
            }
            Ok(None) => {
                self.pause_next = self.backoff_first();
                let detail = "no answer while the store was silent".to_owned();
                Err(Answer::Failed(Failure::new(FailureKind::Unavailable, detail)))
            }
            Err(_) => {
                let detail = format!("no answer within {:.1} s", limit.as_secs_f64());
                Err(Answer::Failed(Failure::new(FailureKind::Overloaded, detail)))
            }
        }
    }

    /// Counts the total limit and the pauses from now on: the operation got further.
    pub(crate) fn progress(&mut self) {
        self.limited_since = Instant::now();
        self.pause_next = self.backoff_first();
    }

    fn backoff_first(&self) -> Duration {
        self.policy.backoff_first.min(self.policy.backoff_max)
    }

    /// The pause before the next attempt: as the failures grow, and no shorter than the store asks for.
    fn pause(&self, failure: &Failure) -> Duration {
        let pause = self.jitter.spread(self.pause_next);
        let Some(asked) = failure.retry_after else { return pause };
        let asked = asked.min(RETRY_AFTER_MAX).min(self.policy.total_limit / RETRY_AFTER_PART);
        // Those who were told the same time are not to come back in step.
        pause.max(asked + self.jitter.below(asked / 4))
    }

    /// Pauses before the next attempt.
    ///
    /// # Errors
    /// The failure, where trying again does not help or there is no time left for it.
    pub(crate) async fn again(&mut self, failure: Failure) -> Result<(), Error> {
        let passes = match failure.kind {
            FailureKind::Unavailable | FailureKind::Overloaded => true,
            FailureKind::Expired => self.standing.waits(),
            _ => false,
        };
        if !passes {
            return Err(failure.into_error(self.at.clone()));
        }
        let pause = self.pause(&failure);
        if self.limited_since.elapsed() + pause >= self.policy.total_limit {
            return Err(self.give_up(failure));
        }
        let (at, attempt, reason) = (&self.at, self.made, &failure.detail);
        if attempt > QUIET_ATTEMPTS && attempt.is_power_of_two() {
            tracing::warn!(%at, attempt, reason, "the store still does not answer as it should; trying again");
        } else {
            let pause_ms = pause.as_millis();
            tracing::debug!(%at, attempt, pause_ms, reason, "the store did not answer as it should; trying again");
        }
        self.pause_next = self.pause_next.saturating_mul(2).min(self.policy.backoff_max);
        sleep(pause).await;
        Ok(())
    }

    fn give_up(&self, failure: Failure) -> Error {
        let elapsed_s = self.started.elapsed().as_secs_f64();
        let detail = format!("{}; gave up after {} attempts in {elapsed_s:.1} s", failure.detail, self.made);
        Failure::new(failure.kind, detail).into_error(self.at.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_repeats_for_a_seed_and_stays_in_its_half() {
        let draw = |seed| {
            let jitter = Jitter::new(seed);
            (0..100).map(|_| jitter.spread(Duration::from_millis(100))).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|d| (50..=100).contains(&d.as_millis())));
        assert!(draw(7).iter().min() < draw(7).iter().max());
    }

    #[test]
    fn the_jitter_of_no_pause_is_no_pause() {
        assert_eq!(Jitter::new(1).spread(Duration::ZERO), Duration::ZERO);
        assert!(Jitter::new(1).spread(Duration::MAX) >= Duration::MAX / 2);
    }
}
