//! What may happen to a request on its way, and how often.
//!
//! Knows rates and draws fates from them; carries none out. Rates are in a thousand, times in virtual milliseconds.

use std::ops::Range;
use std::time::Duration;

use crate::rng::Rng;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It takes effect and is answered.
    Answered,
    /// It fails before it takes effect.
    FailsBefore,
    /// It takes effect, and the answer is an error.
    FailsAfter,
    /// The answer is an error, and it takes effect much later.
    FailsThenLands,
    /// No answer, and no effect.
    Silent,
    /// It takes effect, and the answer is lost.
    SilentAfter,
    /// A create is refused because another one is said to be under way, which is not so.
    Conflict,
}

/// What happens to what is in flight when its process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bequest {
    /// It takes effect as if nothing were.
    Lands,
    /// It never takes effect.
    Lost,
    /// It takes effect this much later.
    LandsLate(Duration),
}

/// One request's course.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    pub(crate) fate: Fate,
    /// From the request to its effect.
    pub(crate) there: Duration,
    /// From the effect to the answer.
    pub(crate) back: Duration,
    /// Had not left the host when its process stalls: it waits until the process wakes.
    pub(crate) held_by_stall: bool,
    pub(crate) bequest: Bequest,
    /// Draws for whoever damages the answer.
    pub(crate) salt: u64,
}

/// Rates and times of faults.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) latency_ms: (u64, u64),
    pub(crate) slow: u64,
    pub(crate) slow_ms: u64,
    pub(crate) fails: u64,
    pub(crate) silent: u64,
    pub(crate) lands_late: u64,
    pub(crate) conflict: u64,
    /// GETs whose bytes are damaged, end early, or are another object's or another range's.
    pub(crate) damaged: u64,
    /// Windows in which every request fails, or gets no answer at all.
    pub(crate) outages_ms: Vec<Range<u64>>,
}

/// Rates and times of one host's SSD.
#[derive(Clone, Debug)]
pub(crate) struct SsdWeather {
    pub(crate) pause_ms: u64,
    pub(crate) slow: u64,
    pub(crate) slow_ms: u64,
    /// Operations that fail.
    pub(crate) fails: u64,
    /// Bytes that it holds.
    pub(crate) capacity: usize,
}

impl SsdWeather {
    /// Nothing fails, nothing is slow, and there is room.
    pub(crate) fn calm() -> Self {
        Self { pause_ms: 1, slow: 0, slow_ms: 1, fails: 0, capacity: usize::MAX }
    }

    /// The weather of one host: mostly good.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self {
            pause_ms: rng.spread(1, 30),
            slow: rng.pick(&[0, 0, 10, 100]),
            slow_ms: rng.spread(100, 60_000),
            fails: rng.pick(&[0, 0, 0, 2, 20]),
            capacity: rng.pick(&[usize::MAX, usize::MAX, 128 << 10, 1 << 20]),
        }
    }

    /// How long an operation takes.
    pub(crate) fn pause(&self, rng: &mut Rng) -> Duration {
        let usual = rng.between(0, self.pause_ms);
        let slow = if rng.chance(self.slow) { rng.spread(1, self.slow_ms) } else { 0 };
        Duration::from_millis(usual + slow)
    }
}

impl Weather {
    /// Nothing fails and nothing is slow.
    pub(crate) fn calm() -> Self {
        Self {
            latency_ms: (1, 4),
            slow: 0,
            slow_ms: 1,
            fails: 0,
            silent: 0,
            lands_late: 0,
            conflict: 0,
            damaged: 0,
            outages_ms: Vec::new(),
        }
    }

    /// The weather of one run: from almost calm to awful.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let badness = rng.pick(&[0, 1, 1, 2, 2, 4]);
        let mut rate = |most: u64| rng.between(0, most * badness);
        let (slow, fails, silent, lands_late) = (rate(40), rate(20), rate(8), rate(10));
        let (conflict, damaged) = (rate(5), rate(4));
        let low = rng.spread(1, 20);
        let mut outages_ms = Vec::new();
        if badness > 0 && rng.chance(350) {
            let start = rng.spread(50, 20_000);
            // Mostly shorter than anybody's patience; sometimes for longer than an hour.
            let most = rng.pick(&[60_000, 60_000, 60_000, 6_000_000]);
            outages_ms.push(start..start + rng.spread(100, most));
        }
        Self {
            latency_ms: (low, low + rng.spread(1, 60)),
            slow,
            slow_ms: rng.spread(100, 20_000),
            fails,
            silent,
            lands_late,
            conflict,
            damaged,
            outages_ms,
        }
    }

    /// The course of a request that leaves at `now_ms`.
    pub(crate) fn course(&self, rng: &mut Rng, now_ms: u64) -> Course {
        let out = self.outages_ms.iter().any(|outage| outage.contains(&now_ms));
        let half = |rng: &mut Rng, yes, no| if rng.chance(500) { yes } else { no };
        let fate = if out {
            half(rng, Fate::FailsBefore, Fate::Silent)
        } else if rng.chance(self.fails) {
            half(rng, Fate::FailsBefore, Fate::FailsAfter)
        } else if rng.chance(self.silent) {
            half(rng, Fate::Silent, Fate::SilentAfter)
        } else if rng.chance(self.lands_late) {
            Fate::FailsThenLands
        } else if rng.chance(self.conflict) {
            Fate::Conflict
        } else {
            Fate::Answered
        };
        let latency = |rng: &mut Rng| {
            let usual = rng.between(self.latency_ms.0, self.latency_ms.1);
            usual + if rng.chance(self.slow) { rng.spread(1, self.slow_ms) } else { 0 }
        };
        let (mut there, back) = (latency(rng), latency(rng));
        let late = Duration::from_millis(rng.spread(100, 400_000));
        if fate == Fate::FailsThenLands {
            there += rng.spread(100, 300_000);
        }
        let bequest = match rng.between(0, 3) {
            0 => Bequest::Lands,
            1 => Bequest::LandsLate(late),
            _ => Bequest::Lost,
        };
        Course {
            fate,
            there: Duration::from_millis(there),
            back: Duration::from_millis(back),
            held_by_stall: rng.chance(600),
            bequest,
            salt: rng.bits(),
        }
    }
}
