//! Back-pressure: how fast clients may write while the store holds more than it should for what is live.
//!
//! Clients that write faster than collection gives back would push the space above its target for as long as they write. So
//! the further it is above, the more of the line is collection's: from `slow_above` on clients get a multiple of the speed
//! at which collection was seen to give space back, half-way to `stop_above` just that speed, and from there on an eighth of
//! it, so that it settles in between. Pure: knows neither clocks nor objects. Invariants:
//! 1. nobody is slowed down unless collection has given something back a moment ago: a store that is away, a log that can
//!    not be collected, or nothing to collect never stops a client;
//! 2. no delay is longer than what the caller allows, and none is given for less than [`BURST`] of the allowed speed.

use std::time::Duration;

/// What is left to clients from `stop_above` on, as a share of what collection gives back.
const SHARE_MIN: f64 = 1.0 / 8.0;
/// Clients may always write this much.
const BYTES_PER_S_MIN: f64 = (256 << 10) as f64;
/// What is written at once without a delay, in time at the allowed speed: a client below that speed waits for nothing.
const BURST: Duration = Duration::from_millis(100);
/// Over how long the speed of collection is measured.
const MEASURED_OVER: Duration = Duration::from_secs(4);
/// For how long a speed counts that was seen last: some times what a piece of it took, in these bounds.
const COUNTS_TIMES: u32 = 4;
const COUNTS_MIN: Duration = Duration::from_secs(5);
const COUNTS_MAX: Duration = Duration::from_secs(30);

/// Where clients are slowed down, above the target of the space amplification.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) slow_above: f64,
    pub(crate) stop_above: f64,
}

/// Bytes a second that clients may write when the amplification is so far `above` its target, and collection gives back
/// `reclaimed` bytes a second; `None` if they may write as they like.
pub(crate) fn allowed(above: f64, bounds: &Bounds, reclaimed: f64) -> Option<f64> {
    let way = (above - bounds.slow_above) / (bounds.stop_above - bounds.slow_above);
    // Also where a bound is infinite.
    if way.is_nan() || way <= 0.0 {
        return None;
    }
    let times = ((1.0 - way) / way).max(SHARE_MIN);
    Some((times * reclaimed).max(BYTES_PER_S_MIN))
}

/// What is remembered of collection and of what clients wrote lately.
#[derive(Clone, Debug)]
pub(crate) struct Pressure {
    bounds: Bounds,
    /// Bytes that came back and the seconds that it took, the older the less.
    reclaimed: (f64, f64),
    /// Until when that counts.
    counts_until: Option<Duration>,
    /// Bytes that were let in and are not written yet at the allowed speed, and when that was so.
    ahead: (f64, Duration),
}

impl Pressure {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, reclaimed: (0.0, 0.0), counts_until: None, ahead: (0.0, Duration::ZERO) }
    }

    /// Collection gave `bytes` back, which took it so long.
    #[allow(clippy::cast_precision_loss)] // a ratio
    pub(crate) fn gave_back(&mut self, now: Duration, bytes: u64, took: Duration) {
        let keep = (-took.as_secs_f64() / MEASURED_OVER.as_secs_f64()).exp();
        let (known, seconds) = self.reclaimed;
        self.reclaimed = (known * keep + bytes as f64, seconds * keep + took.as_secs_f64());
        self.counts_until = Some(now + (took * COUNTS_TIMES).clamp(COUNTS_MIN, COUNTS_MAX));
    }

    /// Collection has nothing to do, or can do nothing.
    pub(crate) fn release(&mut self) {
        self.counts_until = None;
    }

    /// Whether somebody may have to wait now.
    pub(crate) fn is_on(&self, now: Duration) -> bool {
        self.counts_until.is_some_and(|until| now < until)
    }

    /// Lets a write of so many bytes in, after this delay: at most `longest`.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn delay(&mut self, now: Duration, bytes: u64, above: f64, longest: Duration) -> Duration {
        let (reclaimed, seconds) = self.reclaimed;
        let on = self.is_on(now) && reclaimed > 0.0 && seconds > 0.0;
        let allowed = on.then(|| allowed(above, &self.bounds, reclaimed / seconds)).flatten();
        let Some(allowed) = allowed else {
            self.ahead = (0.0, now);
            return Duration::ZERO;
        };
        let (ahead, since) = self.ahead;
        let ahead = (ahead - allowed * now.saturating_sub(since).as_secs_f64()).max(0.0);
        let delay = (ahead / allowed - BURST.as_secs_f64()).clamp(0.0, longest.as_secs_f64());
        // What a client that never stops was let in beyond its due is not for others to wait for.
        let most = allowed * (longest + BURST).as_secs_f64();
        self.ahead = ((ahead + bytes as f64).min(most), now);
        Duration::from_secs_f64(delay)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { slow_above: 0.05, stop_above: 0.15 };
    const MIB: f64 = (1 << 20) as f64;
    const LONGEST: Duration = Duration::from_secs(15);

    /// One that has seen collection give back so many MiB a second.
    fn seen(mib_per_s: u64) -> Pressure {
        let mut pressure = Pressure::new(BOUNDS);
        pressure.gave_back(Duration::ZERO, mib_per_s << 20, Duration::from_secs(1));
        pressure
    }

    #[test]
    fn clients_get_less_the_further_it_is_above() {
        let at = |above| allowed(above, &BOUNDS, 40.0 * MIB);
        assert_eq!((at(-0.2), at(0.0), at(0.05)), (None, None, None));
        assert!(at(0.06).unwrap() > 8.0 * 40.0 * MIB, "hardly slowed where it begins");
        assert!((at(0.1).unwrap() / MIB - 40.0).abs() < 0.1, "what comes back, half-way");
        assert!((at(0.15).unwrap() / MIB - 5.0).abs() < 0.1);
        assert_eq!(at(0.15), at(100.0), "never less than an eighth");
        assert_eq!(at(f64::INFINITY), at(0.15), "nothing is live");
        let never = Bounds { stop_above: f64::INFINITY, ..BOUNDS };
        assert!(allowed(3.0, &never, MIB).is_none_or(f64::is_infinite));
    }

    #[test]
    fn a_client_below_the_allowed_speed_never_waits() {
        let mut pressure = seen(40);
        for tenth in 0..40 {
            let now = Duration::from_millis(tenth * 100);
            assert_eq!(pressure.delay(now, 3 << 20, 0.1, LONGEST), Duration::ZERO);
        }
    }

    /// What one that never stops was let in beyond its due others do not have to wait for.
    #[test]
    fn a_debt_is_worked_off_in_the_longest_wait() {
        let mut pressure = seen(1);
        for _ in 0..1000 {
            pressure.delay(Duration::from_millis(10), 64 << 20, 9.0, LONGEST);
        }
        pressure.gave_back(LONGEST, 1 << 20, Duration::from_secs(1));
        let after = LONGEST + Duration::from_millis(20);
        assert!(pressure.delay(after, 4096, 9.0, LONGEST) <= Duration::from_secs(1));
    }

    #[test]
    fn nobody_waits_for_a_collection_that_gives_nothing_back() {
        let away = |pressure: &mut Pressure, now| {
            (0..100).map(|_| pressure.delay(now, 8 << 20, 9.0, LONGEST)).max().unwrap()
        };
        let second = Duration::from_secs(1);
        assert_eq!(away(&mut Pressure::new(BOUNDS), second), Duration::ZERO, "never seen");
        assert_eq!(away(&mut seen(0), second), Duration::ZERO, "nothing came of it");
        assert!(away(&mut seen(40), second) > second);
        assert_eq!(away(&mut seen(40), COUNTS_MIN), Duration::ZERO, "seen too long ago");
        let mut released = seen(40);
        released.release();
        assert_eq!(away(&mut released, second), Duration::ZERO);
    }

    /// A volume in a few lines: what clients write is held, and collection gives back the faster, the more is held.
    #[allow(clippy::cast_possible_truncation)] // bytes of a hundredth of a second
    fn settles(client_mib_per_s: f64, live: f64, reclaim: f64) -> f64 {
        let mut pressure = Pressure::new(BOUNDS);
        let (target, mut held, mut now, mut due) = (1.3, 1.3 * live, 0.0, 0.0);
        let mut highest: f64 = 0.0;
        for _ in 0..400_000 {
            let step = 0.01;
            now += step;
            let at = Duration::from_secs_f64(now);
            let amplification = held / live;
            let back = if amplification > 1.0 { reclaim * (1.0 - 1.0 / amplification) } else { 0.0 };
            held -= back * step;
            pressure.gave_back(at, (back * step) as u64, Duration::from_secs_f64(step));
            while due <= now {
                let delay = pressure.delay(at, 64 << 10, held / live - target, LONGEST).as_secs_f64();
                due = due.max(now + delay) + 65_536.0 / (client_mib_per_s * MIB);
                held += 65_536.0;
            }
            if now > 100.0 {
                highest = highest.max(held / live);
            }
            if now > 400.0 {
                break;
            }
        }
        highest
    }

    #[test]
    fn a_client_that_writes_as_fast_as_it_can_does_not_outrun_collection() {
        for client in [20.0, 100.0, 2_000.0] {
            let held = settles(client, 2_048.0 * MIB, 60.0 * MIB);
            assert!(held < 1.3 + BOUNDS.stop_above, "{client} MiB/s: {held}");
        }
    }

    proptest! {
        #[test]
        fn what_is_let_in_is_what_is_allowed(
            reclaim in 1u64..500, above in 0.06f64..0.5, writes in prop::collection::vec((1u64..1 << 22, 0u64..200), 50..200)
        ) {
            let allowed = allowed(above, &BOUNDS, (reclaim << 20) as f64).unwrap();
            let mut pressure = seen(reclaim);
            let (mut now, mut all, mut last, mut before) = (Duration::ZERO, 0u64, Duration::ZERO, 0u64);
            for (bytes, pause_ms) in writes {
                let delay = pressure.delay(now, bytes, above, Duration::from_secs(1 << 20));
                // One client, that waits for each of its writes.
                now = (now + delay).min(COUNTS_MIN - Duration::from_nanos(1));
                before = all;
                all += bytes;
                last = now;
                now = (now + Duration::from_millis(pause_ms)).min(COUNTS_MIN - Duration::from_nanos(1));
                if now + Duration::from_millis(1) > COUNTS_MIN {
                    break;
                }
            }
            if last + Duration::from_millis(2) < COUNTS_MIN {
                let most = allowed * (last + BURST).as_secs_f64();
                prop_assert!(before as f64 <= most + 1.0, "{before} bytes before {last:?}, allowed {most}");
            }
        }

        #[test]
        fn a_delay_is_bounded_and_falls_with_what_comes_back(
            above in 0.0f64..2.0, bytes in 1u64..1 << 26, slow in 1u64..100, times in 2u64..10
        ) {
            let run = |reclaim: u64| {
                let mut pressure = seen(reclaim);
                (0..64).map(|_| pressure.delay(Duration::from_secs(1), bytes, above, LONGEST)).collect::<Vec<_>>()
            };
            let (slower, faster) = (run(slow), run(slow * times));
            prop_assert!(slower.iter().all(|delay| *delay <= LONGEST));
            prop_assert!(slower.iter().zip(&faster).all(|(slower, faster)| slower >= faster));
        }
    }
}
