//! Moments of time as people write them: UTC by the Gregorian calendar, as in RFC 3339.
//!
//! Knows no clock. Invariant: what [`utc`] prints, [`parse_utc`] reads as the same second.

/// A moment in milliseconds since 1970 as `2026-11-23T23:44:45Z`.
pub fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a time with its zone: `2026-11-23T23:44:45Z`, with `.5` for parts of the second, or `+01:00` in the place of `Z`. In
/// milliseconds since 1970; a time without parts of the second means all of that second, as people do who read it somewhere.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn parse_utc(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no time: write it as 2026-11-25T20:00:00Z");
    parse(text).ok_or_else(wrong)
}

fn parse(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let punctuation = [(4, "-"), (7, "-"), (13, ":"), (16, ":")];
    if punctuation.iter().any(|(at, mark)| text.get(*at..at + 1) != Some(*mark))
        || !matches!(text.get(10..11)?, "T" | "t" | " ")
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1970 || day == 0 || day > days || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut millis = 999;
    if let Some(parts) = rest.strip_prefix('.') {
        let end = parts.find(|c: char| !c.is_ascii_digit()).unwrap_or(parts.len());
        let digits = parts.get(..end).filter(|digits| !digits.is_empty())?;
        millis = format!("{digits:0<3}").get(..3)?.parse().ok()?;
        rest = parts.get(end..)?;
    }
    let local =
        (days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + millis;
    let east = match rest.get(..1)? {
        "Z" | "z" if rest.len() == 1 => return Some(local),
        "+" => true,
        "-" => false,
        _ => return None,
    };
    let at = text.len() - rest.len();
    if rest.len() != 6 || rest.get(3..4) != Some(":") {
        return None;
    }
    let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset_ms = (hours * 60 + minutes) * 60_000;
    if east { local.checked_sub(offset_ms) } else { local.checked_add(offset_ms) }
}

/// Days since 1970-01-01 as year, month and day, counted in eras of 400 years that begin on the 1st of March, so that the
/// leap day is the last of its year.
fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The other way.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for day in (0..400_000).step_by(7) {
            let unix_ms = day * 86_400_000 + day * 997 % 86_400 * 1000;
            assert_eq!(parse_utc(&utc(unix_ms)), Ok(unix_ms + 999), "{}", utc(unix_ms));
        }
        assert_eq!(utc(1_763_941_485_000), "2025-11-23T23:44:45Z");
    }

    #[test]
    fn zones_and_parts_of_seconds() {
        let noon = 1_763_899_200_000; // 2025-11-23T12:00:00Z
        for (text, unix_ms) in [
            ("2025-11-23T12:00:00.000Z", noon),
            ("2025-11-23T12:00:00.25Z", noon + 250),
            ("2025-11-23t12:00:00.123456z", noon + 123),
            ("2025-11-23T13:30:00.0+01:30", noon),
            ("2025-11-23 07:00:00.0-05:00", noon),
            ("2025-11-23T12:00:00Z", noon + 999),
        ] {
            assert_eq!(parse_utc(text), Ok(unix_ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2025-11-23",
            "2025-11-23T12:00Z",
            "2025-11-23T12:00:00",
            "2025-02-29T12:00:00Z",
            "2025-13-01T12:00:00Z",
            "2025-11-00T12:00:00Z",
            "2025-11-23T24:00:00Z",
            "2025-11-23T12:00:00.Z",
            "2025-11-23T12:00:00+1:00",
            "2025-11-23T12:00:00ZZ",
            "1969-12-31T23:59:59Z",
            "2025-11-2äT12:00:00Z",
            "1970-01-01T00:00:00+23:00",
        ] {
            assert!(parse_utc(text).is_err(), "{text}");
        }
    }
}
