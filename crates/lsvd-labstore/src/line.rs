//! How far away the store seems: a time to the first byte with a tail, and a bandwidth for each direction.
//!
//! Knows verbs and amounts of bytes, and sends nothing itself. Invariants: all bodies of one direction share its
//! bandwidth, in the order in which they ask, piece by piece; without a line nothing waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::numbers::Numbers;
use crate::request::Verb;

/// What one body is given of the bandwidth at a time.
pub(crate) const PIECE_BYTES: usize = 64 << 10;

/// What a direction that was idle, or whose timers fire late, may catch up.
const BURST: Duration = Duration::from_millis(5);

/// The 99th percentile of the normal distribution.
const NORMAL_P99: f64 = 2.326_347_9;

/// Time from a request's last byte to its answer's first, for some verbs: log-normal, by its median and 99th percentile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// To which requests; empty: to all whose verb no other names.
    #[serde(default)]
    pub verbs: Vec<Verb>,
    /// Half of the requests are quicker, in milliseconds.
    pub median_ms: f64,
    /// One of a hundred is slower, in milliseconds; not above the median: all take the median.
    #[serde(default)]
    pub p99_ms: f64,
}

impl Latency {
    /// The sample that a number of the normal distribution stands for.
    fn sample(&self, normal: f64) -> Duration {
        let spread = if self.p99_ms > self.median_ms && self.median_ms > 0.0 {
            (self.p99_ms / self.median_ms).ln() / NORMAL_P99
        } else {
            0.0
        };
        let ms = self.median_ms * (spread * normal).exp();
        Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or_default()
    }
}

/// How far away the store is. As JSON: `{"latency": [{"median_ms": 20, "p99_ms": 150}], "up_bytes_per_s": 10000000}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The first that names a request's verb counts, else the first that names none. Default: none.
    #[serde(default)]
    pub latency: Vec<Latency>,
    /// Shared by the bodies of all requests. `None` or 0: without limit.
    #[serde(default)]
    pub up_bytes_per_s: Option<u64>,
    /// Shared by the bodies of all answers. `None` or 0: without limit.
    #[serde(default)]
    pub down_bytes_per_s: Option<u64>,
}

/// The bandwidth of one direction.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    /// 0: without limit.
    bytes_per_s: AtomicU64,
    /// When all that was let through so far has passed.
    free_at: Mutex<Instant>,
}

impl Bandwidth {
    fn new() -> Self {
        Bandwidth { bytes_per_s: AtomicU64::new(0), free_at: Mutex::new(Instant::now()) }
    }

    fn set(&self, bytes_per_s: Option<u64>) {
        self.bytes_per_s.store(bytes_per_s.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.bytes_per_s.load(Ordering::Relaxed) > 0
    }

    /// When these bytes have passed; `None` where they need not wait.
    pub(crate) fn passes_at(&self, bytes: usize) -> Option<Instant> {
        let bytes_per_s = self.bytes_per_s.load(Ordering::Relaxed);
        if bytes_per_s == 0 {
            return None;
        }
        let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(bytes_per_s);
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = Instant::now();
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = now.checked_sub(BURST).unwrap_or(now).max(*free_at);
        *free_at = begins.checked_add(time).unwrap_or(begins);
        (*free_at > now).then_some(*free_at)
    }
}

/// The line in force.
#[derive(Debug)]
pub(crate) struct LineState {
    latency: Mutex<Vec<Latency>>,
    numbers: Numbers,
    pub(crate) up: Bandwidth,
    pub(crate) down: Bandwidth,
}

impl LineState {
    pub(crate) fn new(seed: u64, line: &Line) -> Self {
        let state = LineState {
            latency: Mutex::default(),
            numbers: Numbers::new(seed),
            up: Bandwidth::new(),
            down: Bandwidth::new(),
        };
        state.set(line);
        state
    }

    pub(crate) fn set(&self, line: &Line) {
        line.latency.clone_into(&mut self.latency.lock().unwrap_or_else(PoisonError::into_inner));
        self.up.set(line.up_bytes_per_s);
        self.down.set(line.down_bytes_per_s);
    }

    /// How long the next answer to such a request takes to begin.
    pub(crate) fn first_byte(&self, verb: Verb) -> Duration {
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let named = latency.iter().find(|latency| latency.verbs.contains(&verb));
        let chosen = named.or_else(|| latency.iter().find(|latency| latency.verbs.is_empty()));
        chosen.map_or(Duration::ZERO, |latency| latency.sample(self.numbers.normal()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_their_median_and_tail() {
        let of = |verbs: &[Verb], median_ms, p99_ms| Latency { verbs: verbs.into(), median_ms, p99_ms };
        let latency = vec![of(&[], 20.0, 200.0), of(&[Verb::Put], 60.0, 0.0)];
        let line = LineState::new(1, &Line { latency, ..Line::default() });
        assert_eq!(line.first_byte(Verb::Put), Duration::from_millis(60));
        let mut drawn: Vec<f64> =
            (0..10_001).map(|_| line.first_byte(Verb::Get).as_secs_f64() * 1e3).collect();
        drawn.sort_by(f64::total_cmp);
        assert!((19.0..21.0).contains(&drawn[5_000]), "median {}", drawn[5_000]);
        assert!((170.0..240.0).contains(&drawn[9_900]), "p99 {}", drawn[9_900]);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_share_the_bandwidth() {
        let line = LineState::new(1, &Line { down_bytes_per_s: Some(1_000_000), ..Line::default() });
        assert_eq!(line.up.passes_at(1 << 30), None, "the other direction is free");
        let began = Instant::now();
        let mut last = began;
        for _ in 0..10 {
            last = line.down.passes_at(100_000).unwrap();
        }
        let took = last - began;
        assert!((995..=1_000).contains(&took.as_millis()), "{took:?}");
    }
}
