//! Names in the bucket, relative to the volume's prefix.
//!
//! Knows only texts. A name that does not parse is somebody else's object and is left alone.
//! Invariant: a number's name parses back to that number, and no other text does.

use crate::checkpoint::PartId;
use crate::{Epoch, NUMBER_MAX, SequenceNumber, SuperblockNumber};

/// Folder of the superblock versions, with its slash.
pub const SUPERBLOCK_FOLDER: &str = "superblock/";
/// Folder of the log of a volume that was not adopted, with its slash.
pub const LOG_FOLDER: &str = "log/";
/// Folder of checkpoints, with its slash.
pub const CHECKPOINT_FOLDER: &str = "checkpoint/";
/// Folder of what was found beyond the durable point, with its slash.
pub const ARCHIVE_FOLDER: &str = "archive/";
/// Folder of the probe's objects, with its slash. All of them may be deleted.
pub const PROBE_FOLDER: &str = "probe/";

/// Reason in an archived object's name: it lay beyond the fence of a new writer.
pub const BEYOND_FENCE: &str = "beyond-fence";
/// Reason in an archived object's name: it lay beyond a gap in the log when that was adopted.
pub const BEYOND_GAP: &str = "beyond-gap";

/// `superblock/<16 hex digits>`.
pub fn superblock(number: SuperblockNumber) -> String {
    format!("{SUPERBLOCK_FOLDER}{:016x}", number.0)
}

/// The number in a superblock version's name.
pub fn parse_superblock(name: &str) -> Option<SuperblockNumber> {
    name.strip_prefix(SUPERBLOCK_FOLDER).and_then(parse_number).map(SuperblockNumber)
}

/// `log/<16 hex digits>`.
pub fn log_object(number: SequenceNumber) -> String {
    format!("{LOG_FOLDER}{:016x}", number.0)
}

/// The number in a log object's name.
pub fn parse_log_object(name: &str) -> Option<SequenceNumber> {
    name.strip_prefix(LOG_FOLDER).and_then(parse_number).map(SequenceNumber)
}

/// `checkpoint/<16 hex digits>-<16 hex digits>-<8 hex digits>`: what the checkpoint is as of, the opening that wrote the
/// part, and its serial.
pub fn checkpoint_part(part: &PartId) -> String {
    format!("{CHECKPOINT_FOLDER}{part}")
}

/// The part in the name of an object of a checkpoint.
pub fn parse_checkpoint_part(name: &str) -> Option<PartId> {
    let mut pieces = name.strip_prefix(CHECKPOINT_FOLDER)?.splitn(3, '-');
    let as_of = SequenceNumber(parse_number(pieces.next()?)?);
    let epoch = Epoch(parse_number(pieces.next()?)?);
    let serial = u32::try_from(parse_hex(pieces.next()?, 8)?).ok()?;
    Some(PartId { as_of, epoch, serial })
}

/// `archive/<UTC time>-epoch-<16 hex digits>-<reason>/<name>`: where an object that may not stay in the log goes.
///
/// Time (`YYYYMMDDThhmmssZ`) and epoch are those of the archiving writer, so that one recovery fills one folder
/// and two never meet; `name` is the object's own, relative to the volume's prefix.
///
/// # Panics
/// If `reason` is empty or has other characters than lowercase letters and `-`.
pub fn archived(unix_ms: u64, epoch: Epoch, reason: &str, name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
    assert!(!reason.is_empty() && reason.bytes().all(plain), "a reason is a word of a name: {reason:?}");
    format!("{ARCHIVE_FOLDER}{}-epoch-{:016x}-{reason}/{name}", utc_time(unix_ms), epoch.0)
}

/// Whether an object's name is one that [`archived`] gives.
pub fn is_archived(name: &str) -> bool {
    let Some((folder, own)) = name.strip_prefix(ARCHIVE_FOLDER).and_then(|name| name.split_once('/')) else {
        return false;
    };
    let mut pieces = folder.splitn(4, '-');
    let time = pieces.next().and_then(|time| time.strip_suffix('Z')).and_then(|time| time.split_once('T'));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_time =
        |(day, time): (&str, &str)| day.len() >= 8 && time.len() == 6 && digits(day) && digits(time);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
    time.is_some_and(is_time)
        && pieces.next() == Some("epoch")
        && pieces.next().and_then(parse_number).is_some()
        && pieces.next().is_some_and(|reason| !reason.is_empty() && reason.bytes().all(plain))
        && !own.is_empty()
}

/// Whether an object's name is one that a look at the store gives to what it leaves behind when it is cut short: a nonce
/// of 32 hex digits, or `doctor-` and 16, and a name below.
pub fn is_probe(name: &str) -> bool {
    let Some((nonce, own)) = name.strip_prefix(PROBE_FOLDER).and_then(|name| name.split_once('/')) else {
        return false;
    };
    let hex = |digits: &str, width: usize| {
        digits.len() == width && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_nonce = match nonce.strip_prefix("doctor-") {
        Some(nonce) => hex(nonce, 16),
        None => hex(nonce, 32),
    };
    is_nonce && !own.is_empty()
}

/// Exactly 16 lowercase hex digits whose value is a number of the format: from 1 to [`NUMBER_MAX`].
fn parse_number(digits: &str) -> Option<u64> {
    parse_hex(digits, 16).filter(|number| (1..=NUMBER_MAX).contains(number))
}

/// Exactly `width` lowercase hex digits, which are 16 at most.
fn parse_hex(digits: &str, width: usize) -> Option<u64> {
    let lowercase = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if digits.len() != width || !lowercase {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// `YYYYMMDDThhmmssZ` of a time in milliseconds since 1970; the year has more digits after 9999.
pub fn utc_time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is a year's last; 400 of them are always 146,097 days.
pub fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    // 0000-03-01 lies 719,468 days before 1970-01-01.
    let days = days_since_1970 + 719_468;
    let (cycle, day_of_cycle) = (days / 146_097, days % 146_097);
    // A leap day falls out at the end of each 4 years, comes back each 100, falls out again at the 400's end.
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    // From March on, months have 153 days in each five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 2: one number, one name.
    #[test]
    fn names_and_numbers_are_one_to_one() {
        for number in [1, 0xa, 0xdead_beef, NUMBER_MAX] {
            assert_eq!(parse_log_object(&log_object(SequenceNumber(number))), Some(SequenceNumber(number)));
            assert_eq!(
                parse_superblock(&superblock(SuperblockNumber(number))),
                Some(SuperblockNumber(number))
            );
        }
        assert_eq!(log_object(SequenceNumber(0xab)), "log/00000000000000ab");
        assert_eq!(superblock(SuperblockNumber(2)), "superblock/0000000000000002");
    }

    /// Rule 2: one part, one name.
    #[test]
    fn names_and_parts_are_one_to_one() {
        for (as_of, epoch, serial) in [(1, 1, 0), (0xab, 0xc, 0xd), (NUMBER_MAX, NUMBER_MAX, u32::MAX)] {
            let part = PartId { as_of: SequenceNumber(as_of), epoch: Epoch(epoch), serial };
            assert_eq!(parse_checkpoint_part(&checkpoint_part(&part)), Some(part));
        }
        let part = PartId { as_of: SequenceNumber(0xab), epoch: Epoch(0x1f), serial: 2 };
        let name = "checkpoint/00000000000000ab-000000000000001f-00000002";
        assert_eq!(checkpoint_part(&part), name);
        for other in [
            &name[..name.len() - 1],
            &format!("{name}0"),
            &format!("{name}-0"),
            &format!("{name}.tmp"),
            &format!("/{name}"),
            &name.to_uppercase(),
            "",
            "checkpoint/",
            "checkpoint/00000000000000ab",
            "checkpoint/00000000000000ab-000000000000001f",
            "checkpoint/00000000000000ab-000000000000001f-",
            "checkpoint/00000000000000AB-000000000000001f-00000002",
            "checkpoint/00000000000000ab-000000000000001f-0000000A",
            "checkpoint/00000000000000ab-000000000000001f-+0000002",
            "checkpoint/00000000000000ab_000000000000001f_00000002",
            "checkpoint/0000000000000000-000000000000001f-00000002",
            "checkpoint/8000000000000000-000000000000001f-00000002",
            "checkpoint/00000000000000ab-0000000000000000-00000002",
            "checkpoint/00000000000000ab-000000000000001f-000000é",
            "log/00000000000000ab-000000000000001f-00000002",
        ] {
            assert_eq!(parse_checkpoint_part(other), None, "{other}");
        }
        assert_eq!(parse_log_object(name), None);
    }

    #[test]
    fn names_of_others_do_not_parse() {
        for name in [
            "",
            "log/",
            "log/1",
            "log/00000000000000AB",
            "log/00000000000000ab ",
            "log/+0000000000000ab",
            "log/000000000000000ab",
            "log/00000000000000ab.tmp",
            "log/x/00000000000000ab",
            "log/0000000000000000",
            "log/8000000000000000",
            "log/ffffffffffffffff",
            "log/0000000000000é1",
            "00000000000000ab",
            "/log/00000000000000ab",
            "superblock/00000000000000ab",
            "archive/log/00000000000000ab",
        ] {
            assert_eq!(parse_log_object(name), None, "{name}");
        }
        assert_eq!(parse_superblock("log/00000000000000ab"), None);
    }

    #[test]
    fn known_dates() {
        for (unix_seconds, text) in [
            (0, "19700101T000000Z"),
            (86_399, "19700101T235959Z"),
            (68_169_599, "19720228T235959Z"),
            (68_169_600, "19720229T000000Z"),
            (68_256_000, "19720301T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (978_307_199, "20001231T235959Z"),
            (1_234_567_890, "20090213T233130Z"),
            (1_704_067_199, "20231231T235959Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
            (253_402_300_799, "99991231T235959Z"),
        ] {
            assert_eq!(utc_time(unix_seconds * 1000 + 999), text);
        }
    }

    #[test]
    fn days_follow_each_other() {
        let month_days = |year: u64, month: u64| match month {
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(civil_date(days), expected);
            let (year, month, day) = expected;
            expected = match (month, day == month_days(year, month)) {
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
                (_, false) => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn no_time_is_too_late_for_a_name() {
        let name = archived(u64::MAX, Epoch(1), BEYOND_FENCE, "log/x");
        assert!(name.ends_with("/log/x") && is_archived(&name));
    }

    /// Rule 3: an archived name says when and why, and is not a log object's.
    #[test]
    fn an_archived_name_says_when_and_why_and_can_not_rejoin_the_log() {
        let name = archived(1_234_567_890_000, Epoch(0x1f), BEYOND_FENCE, &log_object(SequenceNumber(7)));
        assert_eq!(name, "archive/20090213T233130Z-epoch-000000000000001f-beyond-fence/log/0000000000000007");
        assert_eq!(parse_log_object(&name), None);
    }

    /// What is deleted with a volume has names that only a volume gives.
    #[test]
    fn others_objects_are_neither_archived_nor_probes() {
        let archived = "archive/20090213T233130Z-epoch-000000000000001f-beyond-gap/old/0007";
        assert!(is_archived(archived));
        for other in [
            "archive/",
            "archive/notes.txt",
            "archive/2009/notes.txt",
            "archive/20090213T233130Z-epoch-000000000000001f-beyond-gap",
            "archive/20090213T233130Z-epoch-000000000000001f-beyond-gap/",
            "archive/20090213T233130Z-epoch-1f-beyond-gap/0007",
            "archive/20090213-epoch-000000000000001f-beyond-gap/0007",
            "archive/20090213T233130Z-epoch-000000000000001f-/0007",
            "x/20090213T233130Z-epoch-000000000000001f-beyond-gap/0007",
        ] {
            assert!(!is_archived(other), "{other}");
        }
        assert!(is_probe("probe/0123456789abcdef0123456789abcdef/clock"));
        assert!(is_probe("probe/doctor-0123456789abcdef/a/b"));
        for other in [
            "probe/",
            "probe/0123456789abcdef0123456789abcdef",
            "probe/0123456789abcdef0123456789abcdef/",
            "probe/0123456789abcdef/clock",
            "probe/doctor-0123456789ABCDEF/a",
            "probe/mars/photo.jpg",
            "probes/0123456789abcdef0123456789abcdef/clock",
        ] {
            assert!(!is_probe(other), "{other}");
        }
    }
}
