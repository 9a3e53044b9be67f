//! Pins: which objects of the log the snapshots need.
//!
//! An object is a pair of numbers: its own, and that of the object with which its last block died on the volume's own
//! line. Nothing is counted for each snapshot: a block that died does not come back. Invariant: what is needed is never
//! said to be free; what lies on branches that a rollback left may be said to be needed for longer than it is.

use super::{Line, Superblock};
use crate::{NUMBER_MAX, SequenceNumber};

/// What the snapshots of one superblock version need.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// The moments, as far as they are on the volume's own line: ascending.
    moments: Vec<SequenceNumber>,
    /// What is replayed for them: from the first up to the second of each. Ascending, and none touches another.
    tails: Vec<(SequenceNumber, SequenceNumber)>,
    /// The lines of snapshots on other branches.
    branches: Vec<Line>,
}

impl Superblock {
    /// What the snapshots need.
    pub fn pins(&self) -> Pins {
        let own = self.own_line();
        let mut pins = Pins::default();
        let mut tails = Vec::new();
        for snapshot in &self.moments.snapshots {
            let line = self.line(snapshot.as_of);
            // The first number that is replayed: a log may begin with 0.
            let first = snapshot.base.map_or(SequenceNumber(0), |base| base.stamp.as_of.next());
            if !own.contains(snapshot.as_of) {
                pins.branches.push(line.clone());
            }
            let Some(shared) = own.fork(&line) else { continue };
            pins.moments.push(shared);
            if first <= shared {
                tails.push((first, shared));
            }
        }
        pins.moments.sort_unstable();
        tails.sort_unstable();
        for (first, until) in tails {
            match pins.tails.last_mut() {
                Some(last) if first <= last.1.next() => last.1 = last.1.max(until),
                _ => pins.tails.push((first, until)),
            }
        }
        pins
    }
}

impl Pins {
    /// Whether a snapshot needs an object of the volume's own line, whose last block died there with `died`.
    pub fn need(&self, number: SequenceNumber, died: SequenceNumber) -> bool {
        let read = self.moments.get(self.moments.partition_point(|moment| *moment < number));
        let tail = self.tails.get(self.tails.partition_point(|(_, until)| *until < number));
        read.is_some_and(|moment| *moment < died) || tail.is_some_and(|(first, _)| *first <= number)
    }

    /// Whether a snapshot may need an object that is not on the volume's own line.
    pub fn need_branch(&self, number: SequenceNumber) -> bool {
        self.branches.iter().any(|line| line.contains(number))
    }

    /// The newest moment on the volume's own line: what is live up to it stays, whatever becomes of it. 0 without one.
    pub fn newest(&self) -> SequenceNumber {
        self.moments.last().copied().unwrap_or(SequenceNumber(0)).min(SequenceNumber(NUMBER_MAX))
    }

    /// How many moments an object is read at that died with `died`.
    pub fn readers(&self, number: SequenceNumber, died: SequenceNumber) -> usize {
        let from = self.moments.partition_point(|moment| *moment < number);
        self.moments.partition_point(|moment| *moment < died).saturating_sub(from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Rollback;
    use super::*;

    /// Snapshots as (base, as of).
    fn pins(snapshots: &[(u64, u64)], rollbacks: &[(u64, u64)]) -> Pins {
        let superblock = super::super::tests::example_of(
            snapshots,
            rollbacks.iter().map(|(to, next)| Rollback {
                to: SequenceNumber(*to),
                next: SequenceNumber(*next),
                epoch: crate::Epoch(1),
                unix_ms: 0,
            }),
        );
        superblock.pins()
    }

    fn need(pins: &Pins, number: u64, died: u64) -> bool {
        pins.need(SequenceNumber(number), SequenceNumber(died))
    }

    #[test]
    fn a_snapshot_needs_what_it_reads_and_what_is_replayed_for_it() {
        let pins = pins(&[(10, 14)], &[]);
        assert!(need(&pins, 3, 15), "a block of it was read at 14");
        assert!(!need(&pins, 3, 14), "its last block died with 14");
        assert!(need(&pins, 11, 12), "its header is replayed");
        assert!(need(&pins, 14, 14));
        assert!(!need(&pins, 10, 12), "the base holds it");
        assert!(!need(&pins, 15, 90), "it came later");
    }

    #[test]
    fn on_a_branch_that_was_left_all_is_needed_and_below_it_what_lived_at_the_fork() {
        // A snapshot as of 19; then back to 12, and on with 30.
        let pins = pins(&[(15, 19)], &[(12, 30)]);
        assert!(pins.need_branch(SequenceNumber(14)) && pins.need_branch(SequenceNumber(19)));
        assert!(!pins.need_branch(SequenceNumber(20)));
        assert!(need(&pins, 5, 31), "it lived at the fork");
        assert!(!need(&pins, 5, 12), "it had died before");
        assert!(!need(&pins, 31, 32));
        assert_eq!(pins.newest(), SequenceNumber(12));
    }

    proptest! {
        /// The same, by the definition in docs/format.md.
        #[test]
        fn need_is_what_the_format_says(
            snapshots in prop::collection::vec((0u64..40, 0u64..20), 0..6),
            objects in prop::collection::vec((1u64..60, 0u64..60), 1..30),
        ) {
            let snapshots: Vec<(u64, u64)> =
                snapshots.into_iter().map(|(base, more)| (base, (base + more).max(1))).collect();
            let pins = pins(&snapshots, &[]);
            for (number, more) in objects {
                let died = number + more;
                let expected = snapshots
                    .iter()
                    .any(|(base, as_of)| number <= *as_of && (died > *as_of || number > *base));
                prop_assert_eq!(need(&pins, number, died), expected, "object {} died {}", number, died);
            }
        }
    }
}
