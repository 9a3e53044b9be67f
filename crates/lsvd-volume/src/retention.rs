//! Which automatic snapshots stay: the newest of each of the last hours, days, weeks, months and years.
//!
//! Knows times and names alone, by UTC; nothing is removed here. As in the backup tools that people know: each rule keeps the newest
//! snapshot of as many periods as it says, counting only periods that have one. Invariant: what a person named stays.

use lsvd_format::superblock::Snapshot;

use crate::rollback::BEFORE_ROLLBACK;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// How many automatic snapshots are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest ones, whenever they were made.
    pub last: u64,
    /// One for each of so many hours.
    pub hourly: u64,
    /// One for each of so many days.
    pub daily: u64,
    /// One for each of so many weeks, from Monday.
    pub weekly: u64,
    /// One for each of so many months.
    pub monthly: u64,
    /// One for each of so many years.
    pub yearly: u64,
}

/// In which hour, day, … a time is: equal for times in the same one, and larger for later ones.
type Period = fn(u64) -> u64;

impl Retention {
    /// Names of the automatic snapshots that no rule keeps, oldest first. Without any rule none goes.
    pub fn expired(&self, snapshots: &[Snapshot]) -> Vec<String> {
        if *self == Self::default() {
            return Vec::new();
        }
        let by_schedule =
            |snapshot: &&Snapshot| snapshot.automatic && !snapshot.name.starts_with(BEFORE_ROLLBACK);
        let mut automatic: Vec<&Snapshot> = snapshots.iter().filter(by_schedule).collect();
        automatic.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.created_unix_ms, snapshot.as_of)));
        let rules: [(u64, Period); 5] = [
            (self.hourly, |at| at / HOUR_MS),
            (self.daily, |at| at / DAY_MS),
            // 1970-01-01 was a Thursday.
            (self.weekly, |at| (at / DAY_MS + 3) / 7),
            (self.monthly, month),
            (self.yearly, |at| month(at) / 12),
        ];
        let last = usize::try_from(self.last).unwrap_or(usize::MAX);
        let mut keep: Vec<bool> = (0..automatic.len()).map(|nth| nth < last).collect();
        for (most, period) in rules {
            let (mut kept, mut before) = (0, None);
            for (nth, snapshot) in automatic.iter().enumerate() {
                let now = Some(period(snapshot.created_unix_ms));
                if kept < most && now != before {
                    keep[nth] = true;
                    kept += 1;
                    before = now;
                }
            }
        }
        let expired = automatic.iter().zip(keep).filter(|(_, keep)| !keep);
        expired.rev().map(|(snapshot, _)| snapshot.name.clone()).collect()
    }
}

/// Months since the year 0.
fn month(unix_ms: u64) -> u64 {
    let (year, month, _) = lsvd_format::names::civil_date(unix_ms / DAY_MS);
    year * 12 + month - 1
}

#[cfg(test)]
mod tests {
    use lsvd_format::SequenceNumber;

    use super::*;

    /// 2026-01-01T00:00:00Z, a Thursday.
    const NEW_YEAR_MS: u64 = 1_767_225_600_000;

    fn made(hour: u64, automatic: bool) -> Snapshot {
        Snapshot {
            name: format!("h{hour}"),
            as_of: SequenceNumber(hour + 1),
            base: None,
            size_bytes: 4096,
            created_unix_ms: NEW_YEAR_MS + hour * HOUR_MS,
            automatic,
            clone: None,
        }
    }

    /// The hours since new year that are left, if one is made each hour and the rules are applied each time.
    fn left(retention: Retention, hours: u64) -> Vec<u64> {
        let mut snapshots: Vec<Snapshot> = Vec::new();
        for hour in 0..hours {
            snapshots.push(made(hour, true));
            let expired = retention.expired(&snapshots);
            snapshots.retain(|snapshot| !expired.contains(&snapshot.name));
        }
        snapshots.iter().map(|snapshot| snapshot.as_of.0 - 1).collect()
    }

    #[test]
    fn a_day_of_hours_and_a_week_of_days() {
        let retention = Retention { hourly: 24, daily: 7, ..Retention::default() };
        let left = left(retention, 24 * 30);
        let newest = 24 * 30 - 1;
        let mut expected: Vec<u64> =
            (0..7).map(|day| newest - 24 * day).chain(newest - 23..=newest).collect();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(left, expected);
    }

    #[test]
    fn weeks_months_and_years() {
        let weekly = Retention { weekly: 2, ..Retention::default() };
        // The week that began on Monday, 5 January: its newest is the last hour of Sunday the 11th.
        assert_eq!(left(weekly, 24 * 12), [24 * 11 - 1, 24 * 12 - 1]);
        let monthly = Retention { monthly: 2, ..Retention::default() };
        assert_eq!(left(monthly, 24 * 40), [24 * 31 - 1, 24 * 40 - 1]);
        let yearly = Retention { yearly: 2, ..Retention::default() };
        assert_eq!(left(yearly, 24 * 366), [24 * 365 - 1, 24 * 366 - 1]);
        let last = Retention { last: 3, ..Retention::default() };
        assert_eq!(left(last, 10), [7, 8, 9]);
    }

    #[test]
    fn what_a_person_made_stays_and_without_rules_all_does() {
        let undo = Snapshot { name: format!("{BEFORE_ROLLBACK}1"), ..made(0, true) };
        let snapshots = [undo, made(0, false), made(1, true), made(2, true)];
        assert_eq!(Retention { last: 1, ..Retention::default() }.expired(&snapshots), ["h1"]);
        assert!(Retention::default().expired(&snapshots).is_empty());
    }
}
