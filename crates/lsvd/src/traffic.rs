//! What the clients of an export ask for: requests by kind, their bytes, and how long they take.
//!
//! Knows numbers and a clock; no volumes and no NBD. Counters only grow, and reading them stops nobody: a few atomic additions and
//! two looks at the clock beside each request are all that it costs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Flushes.
    Flush,
    /// Trims.
    Trim,
    /// Zeroes that are written.
    Zeroes,
}

/// Each has this many buckets for each doubling.
const SUB_BUCKETS: u64 = 8;
/// Longer than 19 hours is one bucket's.
const EXPONENT_MAX: u32 = 35;
/// Whole microseconds below [`SUB_BUCKETS`], and eighths of doublings from there on.
const BUCKETS: usize = (EXPONENT_MAX as usize - 1) * 8;

/// How many requests took how long. At most an eighth is lost by rounding.
struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

fn bucket(us: u64) -> usize {
    let us = us.min((1 << (EXPONENT_MAX + 1)) - 1);
    if us < SUB_BUCKETS {
        return usize::try_from(us).expect("a few");
    }
    let exponent = us.ilog2();
    let sub = (us >> (exponent - 3)) & (SUB_BUCKETS - 1);
    (exponent as usize - 2) * 8 + usize::try_from(sub).expect("a few")
}

/// The longest time of a bucket, in microseconds.
fn longest_us(bucket: usize) -> u64 {
    let (doubling, sub) = (bucket / 8, (bucket % 8) as u64);
    match doubling {
        0 => sub,
        doubling => ((SUB_BUCKETS + sub + 1) << (doubling - 1)) - 1,
    }
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    latency: Histogram,
}

impl Counters {
    fn count(&self, bytes: u64, took: Duration, failed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match failed {
            true => self.errors.fetch_add(1, Ordering::Relaxed),
            false => self.bytes.fetch_add(bytes, Ordering::Relaxed),
        };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency.0[bucket(us)].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> RequestsJson {
        let counts = self.latency.0.iter().map(|count| count.load(Ordering::Relaxed));
        let filled = counts.enumerate().filter(|(_, count)| *count > 0);
        RequestsJson {
            requests: self.requests.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            latency_us: filled.map(|(bucket, count)| (longest_us(bucket), count)).collect(),
        }
    }
}

/// The requests of one export.
#[derive(Default)]
pub(crate) struct Traffic {
    read: Counters,
    write: Counters,
    flush: Counters,
    trim: Counters,
    zeroes: Counters,
}

impl std::fmt::Debug for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.read().fmt(f)
    }
}

impl Traffic {
    /// Waits for a request and counts it, with the bytes that it covers if it succeeds. One that is given up does not count.
    pub(crate) async fn count<T, E>(
        &self,
        kind: Kind,
        bytes: u64,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let counters = match kind {
            Kind::Read => &self.read,
            Kind::Write => &self.write,
            Kind::Flush => &self.flush,
            Kind::Trim => &self.trim,
            Kind::Zeroes => &self.zeroes,
        };
        let began = Instant::now();
        let answer = request.await;
        counters.count(bytes, began.elapsed(), answer.is_err());
        answer
    }

    /// The counters as they are now.
    pub(crate) fn read(&self) -> TrafficJson {
        TrafficJson {
            read: self.read.read(),
            write: self.write.read(),
            flush: self.flush.read(),
            trim: self.trim.read(),
            zeroes: self.zeroes.read(),
        }
    }
}

/// Requests by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TrafficJson {
    pub(crate) read: RequestsJson,
    pub(crate) write: RequestsJson,
    pub(crate) flush: RequestsJson,
    pub(crate) trim: RequestsJson,
    pub(crate) zeroes: RequestsJson,
}

/// Requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestsJson {
    pub(crate) requests: u64,
    /// Of those that succeeded.
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    /// Times of up to so many microseconds, ascending, and how many requests took as long.
    pub(crate) latency_us: Vec<(u64, u64)>,
}

impl RequestsJson {
    /// What came since `before`, which is of the same daemon.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut latency: BTreeMap<u64, u64> = self.latency_us.iter().copied().collect();
        for (us, count) in &before.latency_us {
            if let Some(now) = latency.get_mut(us) {
                *now = now.saturating_sub(*count);
            }
        }
        Self {
            requests: self.requests.saturating_sub(before.requests),
            bytes: self.bytes.saturating_sub(before.bytes),
            errors: self.errors.saturating_sub(before.errors),
            latency_us: latency.into_iter().filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// The time within which this part of the requests was answered; `None` if there were none.
    pub(crate) fn within(&self, percent: u64) -> Option<Duration> {
        let all: u64 = self.latency_us.iter().map(|(_, count)| count).sum();
        let wanted = u64::try_from((u128::from(all) * u128::from(percent)).div_ceil(100)).ok()?;
        let mut seen = 0;
        let found = self.latency_us.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        found.map(|(us, _)| Duration::from_micros(*us))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        for bucket_number in 0..BUCKETS {
            assert_eq!(bucket(longest_us(bucket_number)), bucket_number);
            assert!(
                bucket_number + 1 == BUCKETS || bucket(longest_us(bucket_number) + 1) == bucket_number + 1
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        /// What a percentile says is never less than the truth, and at most an eighth more.
        #[test]
        fn percentiles_are_near(mut times in prop::collection::vec(0_u64..1 << 30, 1..200), percent in 1_u64..=100) {
            let counters = Counters::default();
            times.iter().for_each(|us| counters.count(0, Duration::from_micros(*us), false));
            times.sort_unstable();
            let rank = (times.len() * usize::try_from(percent).unwrap()).div_ceil(100);
            let truth = times[rank - 1];
            let told = u64::try_from(counters.read().within(percent).unwrap().as_micros()).unwrap();
            prop_assert!(truth <= told && told <= truth + truth / 8, "{truth} {told}");
        }
    }

    #[tokio::test]
    async fn two_looks_tell_what_came_between() {
        let traffic = Traffic::default();
        let ask = |failed: bool| async move { if failed { Err(()) } else { Ok(()) } };
        traffic.count(Kind::Write, 4096, ask(false)).await.unwrap();
        let before = traffic.read();
        traffic.count(Kind::Write, 8192, ask(false)).await.unwrap();
        traffic.count(Kind::Write, 8192, ask(true)).await.unwrap_err();
        let after = traffic.read();
        let between = after.write.since(&before.write);
        assert_eq!((between.requests, between.bytes, between.errors), (2, 8192, 1));
        assert_eq!(between.latency_us.iter().map(|(_, count)| count).sum::<u64>(), 2);
        assert_eq!(after.read, RequestsJson::default());
        assert_eq!(after.read.within(99), None);
    }
}
