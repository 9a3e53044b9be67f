//! Which checkpoints stay kept, so that every commit point of the history can be reached.
//!
//! A commit point is read from a checkpoint at or below it and the objects between; nothing behind the oldest kept one is
//! deleted. So a history is one checkpoint that is older than it, and some between, so that no way is long. Invariants: the
//! two newest stay, the one that the history begins with stays, and no more than [`KEPT_MAX`] do.

use lsvd_format::superblock::CheckpointRef;

use crate::checkpoint::CHECKPOINTS_KEPT;

/// Checkpoints kept at most: each is some hundred bytes of every superblock version, and a read at an opening that sweeps.
const KEPT_MAX: usize = 24;

/// Drops from the kept checkpoints, oldest first, what a history of this length does not need.
pub(crate) fn thin(kept: &mut Vec<CheckpointRef>, history_ms: u64, now_unix_ms: u64) {
    // A checkpoint of which no time is known is of a version that knew no history.
    let begins_before = |kept: &CheckpointRef| kept.taken_unix_ms.saturating_add(history_ms) <= now_unix_ms;
    while kept.len() > CHECKPOINTS_KEPT && (history_ms == 0 || begins_before(&kept[1])) {
        kept.remove(0);
    }
    while kept.len() > KEPT_MAX {
        kept.remove(least_missed(kept, now_unix_ms));
    }
}

/// The one whose neighbours are nearest to each other for their age: the older, the fewer.
fn least_missed(kept: &[CheckpointRef], now_unix_ms: u64) -> usize {
    let missed = |at: &usize| {
        let gap = kept[at + 1].taken_unix_ms.saturating_sub(kept[at - 1].taken_unix_ms);
        let age = now_unix_ms.saturating_sub(kept[*at].taken_unix_ms).max(1);
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
        let mut kept = Vec::new();
        for minute in 1..=minutes {
            kept.push(checkpoint(minute));
            thin(&mut kept, history_ms, minute * 60_000);
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
}
