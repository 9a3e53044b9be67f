//! How fast the store is: small requests one at a time, each tried once, and large objects several at once.
//!
//! Knows no limits that a store must keep; says what was measured. Uses tokio's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;

use super::promises::LARGE_BYTES;
use super::{Check, Examination, Verdict};
use crate::error::Error;

/// Small requests of each kind.
const SMALL_REQUESTS: usize = 20;

const SMALL_BYTES: usize = 4096;

/// Large objects, and how many of them at once.
const LARGE_OBJECTS: usize = 8;
const LARGE_AT_ONCE: usize = 4;

/// A line over which one large object takes longer is not given eight more.
const LARGE_TIME_MAX: Duration = Duration::from_secs(4);

/// Times of one kind of small request, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The middle one.
    pub median_us: u64,
    /// The longest.
    pub longest_us: u64,
    /// How many were answered.
    pub count: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// PUT of 4 KiB.
    pub put: Times,
    /// GET of 4 KiB.
    pub get: Times,
    /// LIST of at most a page.
    pub list: Times,
    /// Bytes of large objects a second, up; `None` where it was not measured.
    pub up_bytes_per_s: Option<u64>,
    /// Down.
    pub down_bytes_per_s: Option<u64>,
    /// How many large objects were on the way at once.
    pub at_once: u64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        let us = |time: Option<&Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        };
        Times {
            median_us: us(times.get(times.len() / 2)),
            longest_us: us(times.last()),
            count: times.len() as u64,
        }
    }
}

/// Requests that were made once, and why those failed that did.
#[derive(Default)]
struct Tally {
    requests: usize,
    failures: BTreeMap<String, usize>,
}

impl Tally {
    async fn timed<T>(&mut self, times: &mut Vec<Duration>, request: impl Future<Output = Result<T, Error>>) {
        let begun = Instant::now();
        self.requests += 1;
        match request.await {
            Ok(_) => times.push(begun.elapsed()),
            Err(error) => {
                let why = error.detail().split("; gave up").next().unwrap_or_default().to_owned();
                *self.failures.entry(why).or_default() += 1;
            }
        }
    }
}

impl Examination {
    pub(super) async fn speed(&self) -> Option<Measured> {
        let stands = |check| self.verdict(check) == Some(Verdict::Good);
        if ![Check::MayCreate, Check::MayRead].into_iter().all(stands) {
            [Check::Answers, Check::Latency, Check::Throughput]
                .into_iter()
                .for_each(|check| self.not_asked(check, "it takes PUT and GET, which fail"));
            return None;
        }
        let mut measured = self.small_requests().await;
        if stands(Check::LargeObjects) {
            self.large_objects(&mut measured).await;
        } else {
            self.not_asked(Check::Throughput, "not even one such object is stored and read");
        }
        Some(measured)
    }

    async fn small_requests(&self) -> Measured {
        let once = self.once();
        let payload = Bytes::from(vec![7; SMALL_BYTES]);
        let mut tally = Tally::default();
        let (mut puts, mut gets, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..SMALL_REQUESTS {
            let name = self.name(&format!("small/{number}"));
            tally.timed(&mut puts, once.create(&name, payload.clone().into())).await;
            tally.timed(&mut gets, once.read_head(&name, u64::MAX)).await;
            if self.verdict(Check::MayList) == Some(Verdict::Good) && number % 4 == 0 {
                tally.timed(&mut lists, once.list(&self.base, None)).await;
            }
            // A store that leaves half of all requests unanswered has been understood.
            if tally.failures.values().sum::<usize>() >= SMALL_REQUESTS / 2 {
                break;
            }
        }
        let failed: usize = tally.failures.values().sum();
        if failed == 0 {
            self.good(Check::Answers, format!("all {} at the first attempt", tally.requests));
        } else {
            let mut reasons: Vec<(String, usize)> = tally.failures.into_iter().collect();
            reasons.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
            let reasons: Vec<String> =
                reasons.into_iter().take(3).map(|(why, count)| format!("{count} times: {why}")).collect();
            let answered = format!("{failed} of {} were not: {}", tally.requests, reasons.join("; "));
            let advice = "lsvd asks again, and writes wait meanwhile: look at the store's limits (SlowDown), at what \
                          stands between (resets, silence), and at its own health";
            self.tell(Check::Answers, Verdict::Warning, answered, advice);
        }
        let measured = Measured {
            put: Times::of(puts),
            get: Times::of(gets),
            list: Times::of(lists),
            ..Measured::default()
        };
        let told = |name: &str, times: Times| match times.count {
            0 => format!("{name} none"),
            _ => format!("{name} {} ms (longest {})", ms(times.median_us), ms(times.longest_us)),
        };
        let [put, get, list] =
            [("PUT", measured.put), ("GET", measured.get), ("LIST", measured.list)].map(|(n, t)| told(n, t));
        self.good(Check::Latency, format!("{put}, {get}, {list}; a flush takes a PUT"));
        measured
    }

    async fn large_objects(&self, measured: &mut Measured) {
        let check = Check::Throughput;
        let bytes = Bytes::from(vec![0x5a; LARGE_BYTES]);
        let first = self.name("large-0");
        let begun = Instant::now();
        if let Err(error) = self.bucket.create(&first, bytes.clone().into()).await {
            return self.tell(check, Verdict::Unknown, error.detail(), "");
        }
        let one = begun.elapsed();
        let (objects, at_once) = if one > LARGE_TIME_MAX { (1, 1) } else { (LARGE_OBJECTS, LARGE_AT_ONCE) };
        let names: Vec<String> = (1..=objects).map(|number| self.name(&format!("large-{number}"))).collect();
        let up = match objects {
            1 => rate(1, one),
            _ => {
                let begun = Instant::now();
                let puts = names.iter().map(|name| self.bucket.create(name, bytes.clone().into()));
                match all(puts, at_once).await {
                    Ok(()) => rate(objects, begun.elapsed()),
                    Err(error) => return self.tell(check, Verdict::Unknown, error.detail(), ""),
                }
            }
        };
        let begun = Instant::now();
        let names = if objects == 1 { vec![first] } else { names };
        let gets = names.iter().map(|name| self.bucket.read_head(name, u64::MAX));
        let down = match all(gets, at_once).await {
            Ok(()) => rate(objects, begun.elapsed()),
            Err(error) => return self.tell(check, Verdict::Unknown, error.detail(), ""),
        };
        *measured = Measured {
            up_bytes_per_s: Some(up),
            down_bytes_per_s: Some(down),
            at_once: at_once as u64,
            ..*measured
        };
        self.good(check, format!("up {} MiB/s, down {} MiB/s, {at_once} at once", mib(up), mib(down)));
    }
}

async fn all<T>(
    requests: impl Iterator<Item = impl Future<Output = Result<T, Error>>>,
    at_once: usize,
) -> Result<(), Error> {
    let mut answers = futures::stream::iter(requests).buffer_unordered(at_once);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

fn rate(objects: usize, time: Duration) -> u64 {
    let bytes = (objects * LARGE_BYTES) as u128 * 1_000_000;
    u64::try_from(bytes / time.as_micros().max(1)).unwrap_or(u64::MAX)
}

/// Milliseconds with two digits at least: `0.45`, `1.8`, `120`.
fn ms(us: u64) -> String {
    match us {
        0..1_000 => format!("{}.{:02}", us / 1_000, us % 1_000 / 10),
        1_000..100_000 => format!("{}.{}", us / 1_000, us % 1_000 / 100),
        _ => (us / 1_000).to_string(),
    }
}

fn mib(bytes_per_s: u64) -> String {
    let tenths = bytes_per_s.saturating_mul(10) >> 20;
    if tenths < 1_000 { format!("{}.{}", tenths / 10, tenths % 10) } else { (tenths / 10).to_string() }
}
