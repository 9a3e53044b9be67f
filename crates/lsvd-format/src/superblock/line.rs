//! Lines: the numbers of the log that belong to a moment.
//!
//! A number follows the one below it, but the `next` of a rollback follows its `to`. So a line is a few ranges, which are
//! never empty and ascend. Knows nothing of what the numbers stand for, and nothing of what fences skip.

use super::Rollback;
use crate::superblock::NumberRange;
use crate::{NUMBER_MAX, SequenceNumber};

/// The numbers that belong to a moment, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    ranges: Vec<NumberRange>,
}

impl Line {
    /// The line that ends with `last`, in a log from `first` on with these rollbacks, by ascending `next`.
    pub(super) fn of(rollbacks: &[Rollback], first: SequenceNumber, last: SequenceNumber) -> Self {
        let mut ranges = Vec::new();
        let mut last = last;
        for rollback in rollbacks.iter().rev() {
            if rollback.next <= last {
                ranges.push(NumberRange { first: rollback.next, last });
                last = rollback.to;
            }
        }
        ranges.push(NumberRange { first: first.min(last), last });
        ranges.reverse();
        Self { ranges }
    }

    /// The number that it ends with.
    pub fn last(&self) -> SequenceNumber {
        self.ranges.last().map_or(SequenceNumber(NUMBER_MAX), |range| range.last)
    }

    /// Whether a number belongs to it.
    pub fn contains(&self, number: SequenceNumber) -> bool {
        let after = self.ranges.partition_point(|range| range.last < number);
        self.ranges.get(after).is_some_and(|range| range.first <= number)
    }

    /// Where the line leaves its way: the last number before, and the one that follows it.
    pub fn jumps(&self) -> impl Iterator<Item = (SequenceNumber, SequenceNumber)> + '_ {
        self.ranges.windows(2).map(|two| (two[0].last, two[1].first))
    }

    /// The last number that this line and another one share; `None` if they share none.
    pub fn fork(&self, other: &Self) -> Option<SequenceNumber> {
        let mut shared = None;
        for (mine, theirs) in self.ranges.iter().zip(&other.ranges) {
            if mine.first != theirs.first {
                break;
            }
            shared = Some(mine.last.min(theirs.last));
            if mine.last != theirs.last {
                break;
            }
        }
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    const fn number(number: u64) -> SequenceNumber {
        SequenceNumber(number)
    }

    fn rollbacks() -> Vec<Rollback> {
        // 1..=10, back to 6, 20..=29, back to 25, 40..=49, back to 10 on the first branch, 60..
        [(6, 20), (25, 40), (10, 60)]
            .map(|(to, next)| Rollback { to: number(to), next: number(next), epoch: Epoch(to), unix_ms: 0 })
            .to_vec()
    }

    fn line(last: u64) -> Line {
        Line::of(&rollbacks(), number(1), number(last))
    }

    fn numbers(line: &Line) -> Vec<u64> {
        (0..100).filter(|at| line.contains(number(*at))).collect()
    }

    #[test]
    fn a_line_follows_the_rollbacks_that_led_to_it() {
        assert_eq!(numbers(&line(9)), (1..=9).collect::<Vec<_>>());
        assert_eq!(numbers(&line(22)), (1..=6).chain(20..=22).collect::<Vec<_>>());
        assert_eq!(numbers(&line(41)), (1..=6).chain(20..=25).chain(40..=41).collect::<Vec<_>>());
        assert_eq!(numbers(&line(61)), (1..=10).chain(60..=61).collect::<Vec<_>>());
        assert_eq!(
            line(41).jumps().collect::<Vec<_>>(),
            [(6, 20), (25, 40)].map(|(a, b)| (number(a), number(b)))
        );
    }

    #[test]
    fn lines_share_what_was_before_they_parted() {
        assert_eq!(line(61).fork(&line(41)), Some(number(6)));
        assert_eq!(line(41).fork(&line(29)), Some(number(25)));
        assert_eq!(line(5).fork(&line(61)), Some(number(5)));
        assert_eq!(line(61).fork(&line(61)), Some(number(61)));
        assert_eq!(line(9).fork(&line(61)), Some(number(9)));
    }

    /// Every number of a line leads to the line below it: the definition, checked one by one.
    #[test]
    fn a_line_is_what_its_last_number_follows() {
        for last in 1..70 {
            let mut expected = Vec::new();
            let mut at = last;
            loop {
                expected.push(at);
                at = match rollbacks().iter().find(|rollback| rollback.next.0 == at) {
                    Some(rollback) => rollback.to.0,
                    None if at == 1 => break,
                    None => at - 1,
                };
            }
            expected.reverse();
            assert_eq!(numbers(&line(last)), expected, "the line of {last}");
        }
    }
}
