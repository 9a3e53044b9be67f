//! From two looks at a volume to what it did between them, in words and numbers.
//!
//! Knows the counters of `status`; no sockets and no terminals. What only grows is told as a rate, a level as it is now.

use std::time::Duration;

use crate::commands::status::state_of;
use crate::control::daemon::{StatsJson, StoreJson, VolumeStatus};
use crate::traffic::RequestsJson;
use crate::units;

/// What a volume did.
#[derive(Debug)]
pub(super) struct Rates {
    seconds: f64,
    read: RequestsJson,
    write: RequestsJson,
    flush: RequestsJson,
    trim: RequestsJson,
    zeroes: RequestsJson,
    /// What was counted between.
    stats: StatsJson,
    store: StoreJson,
}

impl Rates {
    /// Heads of what [`Rates::cells`] gives.
    pub(super) const HEADS: [&str; 32] = [
        "volume",
        "state",
        "clients",
        "read/s",
        "read_mib/s",
        "read_p50_ms",
        "read_p99_ms",
        "write/s",
        "write_mib/s",
        "write_p50_ms",
        "write_p99_ms",
        "flush/s",
        "flush_p50_ms",
        "flush_p99_ms",
        "trim/s",
        "errors/s",
        "lag_bytes",
        "lag_ms",
        "uploads",
        "cache_hit_%",
        "cache_bytes",
        "put/s",
        "put_mib/s",
        "get/s",
        "get_mib/s",
        "list/s",
        "delete/s",
        "store_failures/s",
        "moved_mib/s",
        "log_bytes",
        "live_bytes",
        "amplification",
    ];

    /// What came between `before` and `after`, of one opening of a volume, in this time.
    pub(super) fn between(before: &VolumeStatus, after: &VolumeStatus, seconds: f64) -> Self {
        let (was, is) = (&before.requests, &after.requests);
        let grown = |after: u64, before: u64| after.saturating_sub(before);
        let (old, new) = (&before.stats, &after.stats);
        let stats = StatsJson {
            cache_hits: grown(new.cache_hits, old.cache_hits),
            cache_misses: grown(new.cache_misses, old.cache_misses),
            moved_bytes: grown(new.moved_bytes, old.moved_bytes),
            slowed_ms: grown(new.slowed_ms, old.slowed_ms),
            ..*new
        };
        let (old, new) = (&before.store, &after.store);
        let store = StoreJson {
            puts: grown(new.puts, old.puts),
            put_bytes: grown(new.put_bytes, old.put_bytes),
            gets: grown(new.gets, old.gets),
            get_bytes: grown(new.get_bytes, old.get_bytes),
            lists: grown(new.lists, old.lists),
            deletes: grown(new.deletes, old.deletes),
            failures: grown(new.failures, old.failures),
        };
        Self {
            seconds: seconds.max(0.001),
            read: is.read.since(&was.read),
            write: is.write.since(&was.write),
            flush: is.flush.since(&was.flush),
            trim: is.trim.since(&was.trim),
            zeroes: is.zeroes.since(&was.zeroes),
            stats,
            store,
        }
    }

    #[allow(clippy::cast_precision_loss)] // a rate
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds
    }

    fn mib(&self, bytes: u64) -> f64 {
        self.per_second(bytes) / f64::from(1 << 20)
    }

    fn errors(&self) -> u64 {
        [&self.read, &self.write, &self.flush, &self.trim, &self.zeroes].iter().map(|kind| kind.errors).sum()
    }

    /// Chunks that the cache had, in per cent of those that were read; `None` if none were.
    #[allow(clippy::cast_precision_loss)] // a ratio
    fn hits(&self) -> Option<f64> {
        let StatsJson { cache_hits, cache_misses, .. } = self.stats;
        (cache_hits + cache_misses > 0)
            .then(|| 100.0 * cache_hits as f64 / (cache_hits + cache_misses) as f64)
    }

    /// Bytes of the log for each that is live; `None` if nothing is.
    #[allow(clippy::cast_precision_loss)] // a ratio
    fn amplification(&self) -> Option<f64> {
        let StatsJson { log_bytes, live_bytes, .. } = self.stats;
        (live_bytes > 0).then(|| log_bytes as f64 / live_bytes as f64)
    }

    /// One line of a pipe. What there is none of is `-`.
    pub(super) fn cells(&self, volume: &VolumeStatus) -> [String; 32] {
        let rate = |count| format!("{:.1}", self.per_second(count));
        let mib = |bytes| format!("{:.2}", self.mib(bytes));
        let ms = |kind: &RequestsJson, percent| {
            kind.within(percent).map_or_else(none, |time| format!("{:.3}", in_ms(time)))
        };
        let number = |number: Option<f64>| number.map_or_else(none, |number| format!("{number:.2}"));
        let (stats, store) = (&self.stats, &self.store);
        [
            volume.name.clone(),
            state_of(volume),
            volume.clients.to_string(),
            rate(self.read.requests),
            mib(self.read.bytes),
            ms(&self.read, 50),
            ms(&self.read, 99),
            rate(self.write.requests),
            mib(self.write.bytes),
            ms(&self.write, 50),
            ms(&self.write, 99),
            rate(self.flush.requests),
            ms(&self.flush, 50),
            ms(&self.flush, 99),
            rate(self.trim.requests + self.zeroes.requests),
            rate(self.errors()),
            stats.buffered_bytes.to_string(),
            stats.buffered_ms.to_string(),
            stats.uploads_in_flight.to_string(),
            number(self.hits()),
            stats.cache_bytes.to_string(),
            rate(store.puts),
            mib(store.put_bytes),
            rate(store.gets),
            mib(store.get_bytes),
            rate(store.lists),
            rate(store.deletes),
            rate(store.failures),
            mib(stats.moved_bytes),
            stats.log_bytes.to_string(),
            stats.live_bytes.to_string(),
            number(self.amplification()),
        ]
    }

    /// Some lines for people.
    pub(super) fn picture(&self, volume: &VolumeStatus) -> Vec<String> {
        let (stats, store) = (&self.stats, &self.store);
        let mut lines = vec![
            format!(
                "{}  {}, {}, {} clients, {}",
                volume.name,
                units::bytes_exact(volume.size_bytes),
                state_of(volume),
                volume.clients,
                volume.url
            ),
            format!("  {:<8}{:>10}{:>10}{:>12}{:>12}{:>10}", "", "/s", "MiB/s", "p50", "p99", "errors"),
        ];
        for (name, kind) in [
            ("read", &self.read),
            ("write", &self.write),
            ("flush", &self.flush),
            ("trim", &self.trim),
            ("zeroes", &self.zeroes),
        ] {
            let time = |percent| kind.within(percent).map_or_else(none, in_words);
            lines.push(format!(
                "  {name:<8}{:>10.0}{:>10.1}{:>12}{:>12}{:>10}",
                self.per_second(kind.requests),
                self.mib(kind.bytes),
                time(50),
                time(99),
                kind.errors
            ));
        }
        let bytes = units::bytes_human;
        let hits =
            self.hits().map_or_else(|| "no reads of it".to_owned(), |hits| format!("{hits:.0} % hits"));
        let amplification = self
            .amplification()
            .map_or_else(String::new, |ratio| format!(", {ratio:.2} bytes for each live one"));
        let lag = match stats.buffered_bytes {
            0 => "none".to_owned(),
            buffered => format!(
                "{} for {:.1} s",
                bytes(buffered),
                in_ms(Duration::from_millis(stats.buffered_ms)) / 1e3
            ),
        };
        lines.push(format!("  lag     {lag}, {} uploads in flight", stats.uploads_in_flight));
        lines.push(format!("  cache   {}, {hits}", bytes(stats.cache_bytes)));
        lines.push(format!(
            "  store   PUT {:.0}/s {:.1} MiB/s, GET {:.0}/s {:.1} MiB/s, LIST {:.1}/s, DELETE {:.1}/s, failed {:.1}/s",
            self.per_second(store.puts),
            self.mib(store.put_bytes),
            self.per_second(store.gets),
            self.mib(store.get_bytes),
            self.per_second(store.lists),
            self.per_second(store.deletes),
            self.per_second(store.failures)
        ));
        lines.push(format!(
            "  space   log {}, live {}, dead {}{amplification}; moving {:.1} MiB/s",
            bytes(stats.log_bytes),
            bytes(stats.live_bytes),
            bytes(stats.log_bytes.saturating_sub(stats.live_bytes)),
            self.mib(stats.moved_bytes)
        ));
        if stats.slowed_ms > 0 {
            let slowed = Duration::from_millis(stats.slowed_ms).as_secs_f64();
            lines.push(format!("  slowed  writes waited {slowed:.1} s for collection, all together"));
        }
        lines
    }
}

fn none() -> String {
    "-".to_owned()
}

fn in_ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn in_words(time: Duration) -> String {
    match time.as_micros() {
        us @ 0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{:.1} ms", in_ms(time)),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
