//! Which checkpoints stay kept, so that every commit point of the history can be reached.
//!
//! A commit point is read from a checkpoint at or below it and the objects between; nothing behind the oldest kept one is
//! deleted. So a history is one checkpoint that is older than it, and some between, so that no way is long. Invariants: the
//! two newest stay, the one that the history begins with stays, and no more than [`KEPT_MAX`] do. And no single clock that is
//! wrong makes anything older than it is: of what went by since this opening's first checkpoint its own monotonic clock tells,
//! of what was before the stamps that are there, as far as its wall clock does not contradict.

use std::time::Duration;

use lsvd_format::checkpoint::PartId;
use lsvd_format::superblock::CheckpointRef;

use crate::checkpoint::CHECKPOINTS_KEPT;

/// Checkpoints kept at most: each is some hundred bytes of every superblock version, and a read at an opening that sweeps.
const KEPT_MAX: usize = 24;

/// How old the checkpoints of an open volume are.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    /// When its first one was written, by the monotonic clock, and what time that is called.
    began: Option<(Duration, u64)>,
    /// Its own checkpoints, and when they were written.
    own: Vec<(PartId, u64)>,
}

impl Ages {
    /// Drops from the kept checkpoints, oldest first, what a history of this length does not need. The last of them is written
    /// now, at `monotonic`, which the wall clock calls `now_unix_ms`.
    pub(crate) fn thin(
        &mut self,
        kept: &mut Vec<CheckpointRef>,
        history_ms: u64,
        (monotonic, now_unix_ms): (Duration, u64),
    ) {
        let Some((newest, earlier)) = kept.split_last() else { return };
        // What nobody watched, from the last checkpoint before to the first one of this opening, counts as no time.
        let latest = earlier.iter().map(|kept| kept.taken_unix_ms).max().unwrap_or(now_unix_ms);
        let (since, began_ms) = *self.began.get_or_insert((monotonic, latest.min(now_unix_ms)));
        let watched_ms = u64::try_from(monotonic.saturating_sub(since).as_millis()).unwrap_or(u64::MAX);
        let now_ms = began_ms.saturating_add(watched_ms);
        self.own.retain(|(part, _)| earlier.iter().any(|kept| kept.part == *part));
        self.own.push((newest.part, now_ms));
        let mut at_least = 0;
        let taken = |kept: &CheckpointRef| {
            let own = self.own.iter().find(|(part, _)| *part == kept.part);
            // None is older than one before it. One of which no time is known is of a version that knew no history.
            at_least = own.map_or(kept.taken_unix_ms.min(began_ms), |(_, at)| *at).max(at_least);
            (*kept, at_least)
        };
        let mut aged: Vec<(CheckpointRef, u64)> = kept.iter().map(taken).collect();
        thin(&mut aged, history_ms, now_ms);
        *kept = aged.into_iter().map(|(kept, _)| kept).collect();
    }
}

/// Drops what a history of this length does not need of checkpoints and when they were written.
fn thin(kept: &mut Vec<(CheckpointRef, u64)>, history_ms: u64, now_ms: u64) {
    while kept.len() > CHECKPOINTS_KEPT && (history_ms == 0 || kept[1].1.saturating_add(history_ms) <= now_ms)
    {
        kept.remove(0);
    }
    while kept.len() > KEPT_MAX {
        kept.remove(least_missed(kept, now_ms));
    }
}

/// The one whose neighbours are nearest to each other for their age: the older, the fewer.
fn least_missed(kept: &[(CheckpointRef, u64)], now_ms: u64) -> usize {
    let missed = |at: &usize| {
        let gap = kept[at + 1].1.saturating_sub(kept[at - 1].1);
        let age = now_ms.saturating_sub(kept[*at].1).max(1);
        // In thousandths: whole numbers have an order.
        u128::from(gap) * 1000 / u128::from(age)
    };
    (1..kept.len() - CHECKPOINTS_KEPT).min_by_key(missed).expect("more are kept than may be")
}

#[cfg(test)]
mod tests {
    use lsvd_format::checkpoint::{CheckpointStamp, PartId};
    use lsvd_format::{Epoch, SequenceNumber, WriterId};

    use super::*;

    fn checkpoint(minute: u64) -> CheckpointRef {
        let as_of = SequenceNumber(minute + 1);
        CheckpointRef {
            stamp: CheckpointStamp { as_of, epoch: Epoch(1), writer: WriterId([1; 16]) },
            part: PartId { as_of, epoch: Epoch(1), serial: 0 },
            root_offset_bytes: 96,
            root_bytes: 200,
            taken_unix_ms: minute * 60_000,
        }
    }

    /// What is kept after a checkpoint each minute.
    fn kept_after(minutes: u64, history_ms: u64) -> Vec<u64> {
        let (mut kept, mut ages) = (Vec::new(), Ages::default());
        for minute in 1..=minutes {
            kept.push(checkpoint(minute));
            ages.thin(&mut kept, history_ms, (Duration::from_secs(60 * minute), minute * 60_000));
        }
        kept.iter().map(|kept| kept.taken_unix_ms / 60_000).collect()
    }

    #[test]
    fn without_a_history_the_two_newest_stay() {
        assert_eq!(kept_after(1, 0), [1]);
        assert_eq!(kept_after(100, 0), [99, 100]);
    }

    #[test]
    fn a_short_history_keeps_one_that_is_older_than_it_and_all_since() {
        assert_eq!(kept_after(100, 5 * 60_000), [95, 96, 97, 98, 99, 100]);
        assert_eq!(kept_after(3, 5 * 60_000), [1, 2, 3]);
    }

    /// The oldest must be older than the history at every moment, though it was thinned all the way.
    #[test]
    fn a_long_history_is_thinned_and_begins_no_later() {
        for minutes in [30, 200, 1000, 3000] {
            let kept = kept_after(minutes, 1440 * 60_000);
            assert!(kept.len() <= KEPT_MAX, "{kept:?}");
            assert!(kept[0] <= minutes.saturating_sub(1440).max(1), "it begins at {} of {minutes}", kept[0]);
            assert!(kept.ends_with(&[minutes - 1, minutes]), "{kept:?}");
            let widest = kept.windows(2).map(|two| two[1] - two[0]).max().unwrap();
            assert!(widest <= 1440 / 2, "{kept:?}");
        }
    }

    const DAY: u64 = 1440;

    /// One that is as of `minute`, of a clock that says `says`.
    fn stamped(minute: u64, says: u64) -> CheckpointRef {
        CheckpointRef { taken_unix_ms: says * 60_000, ..checkpoint(minute) }
    }

    /// What is kept of these, and of such as an opening whose clock is `ahead` minutes ahead writes each minute from `from` on.
    fn kept_by(mut kept: Vec<CheckpointRef>, from: u64, count: u64, ahead: i64) -> Vec<u64> {
        let mut ages = Ages::default();
        for minute in from..from + count {
            let says = minute.saturating_add_signed(ahead);
            kept.push(stamped(minute, says));
            ages.thin(&mut kept, DAY * 60_000, (Duration::from_secs(60 * minute), says * 60_000));
        }
        kept.iter().map(|kept| kept.stamp.as_of.0 - 1).collect()
    }

    fn hours(hours: std::ops::Range<u64>) -> Vec<CheckpointRef> {
        hours.map(|hour| checkpoint(10_000 + hour * 60)).collect()
    }

    /// An opening whose clock is a year ahead, or far behind, drops nothing of the last day for that.
    #[test]
    fn a_clock_that_is_wrong_ages_nothing() {
        for ahead in [365 * 1440, -9_000] {
            let kept = kept_by(hours(0..12), 10_720, 8, ahead);
            assert_eq!(kept[..12], kept_by(hours(0..12), 10_720, 1, 0)[..12], "{ahead}");
        }
    }

    /// A checkpoint that such a one left in between neither ages those before it nor stays for ever.
    #[test]
    fn a_wrong_stamp_ages_nothing_and_passes() {
        for says in [999_999, 3] {
            let mut before = hours(0..12);
            before.push(stamped(10_720, says));
            assert_eq!(kept_by(before.clone(), 10_730, 1, 0).len(), 14, "{says}");
            let kept = kept_by(before, 10_730, 2 * DAY, 0);
            assert!(kept[0] >= 10_720 && kept[1] > 10_730, "it begins a day ago: {says} {kept:?}");
        }
    }

    /// What went by between two openings shows in the next one.
    #[test]
    fn time_that_nobody_watched_counts_later() {
        let mut kept = hours(0..3);
        kept.extend((0..3).map(|day| checkpoint(20_000 + day * DAY)));
        let kept = kept_by(kept, 20_000 + 3 * DAY, 1, 0);
        assert_eq!(kept, [20_000 + DAY, 20_000 + 2 * DAY, 20_000 + 3 * DAY]);
    }
}
