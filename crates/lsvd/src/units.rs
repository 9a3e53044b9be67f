//! Sizes and durations as people write them on a command line, and as they are printed for people.
//!
//! Knows no flags. Invariants: 1. a text is either exact or an error, nothing is rounded; 2. the units of sizes are
//! powers of 1,024, and what could mean a power of 1,000 is refused; 3. what [`bytes_exact`] prints is read back as
//! the same size.

use std::time::Duration;

const UNITS: [(char, u32); 6] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50), ('E', 60)];

/// Reads a size in bytes: `4096`, `64M`, `64MiB`, `1T`.
///
/// # Errors
/// Says what is wrong and what can be written instead.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    if digits.is_empty() {
        return Err(format!("'{text}' is no size: write it as 4096, 64M or 1T"));
    }
    if unit.starts_with(['.', ',']) {
        return Err(format!(
            "'{text}' is not a whole number: write a smaller unit, as 1536G for one and a half T"
        ));
    }
    let shift = unit_shift(unit).ok_or_else(|| unknown_unit(text, unit))?;
    let count: u64 = digits.parse().map_err(|_| format!("'{text}' is larger than 64 bits hold"))?;
    count.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is larger than 64 bits hold"))
}

fn unit_shift(unit: &str) -> Option<u32> {
    let mut rest = unit.chars();
    let Some(letter) = rest.next() else { return Some(0) };
    let (_, shift) = UNITS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(&letter))?;
    matches!(rest.as_str(), "" | "iB").then_some(shift)
}

fn unknown_unit(text: &str, unit: &str) -> String {
    let decimal = unit.len() == 2 && unit.ends_with(['B', 'b']) && unit_shift(&unit[..1]).is_some();
    if decimal {
        let letter = unit[..1].to_uppercase();
        return format!(
            "'{text}': {unit} means a power of 1,000 to some and of 1,024 to others; write {letter} or {letter}iB, \
             a power of 1,024"
        );
    }
    format!("'{text}': unknown unit '{unit}'; the units are K, M, G, T, P and E, powers of 1,024")
}

/// Reads the size of a volume: what [`parse_bytes`] reads, not zero, a multiple of 4,096.
///
/// # Errors
/// Says what is wrong, and the nearest sizes that can be.
pub fn parse_volume_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes == 0 {
        return Err("a volume of no bytes can hold nothing: the smallest has 4096".into());
    }
    if !bytes.is_multiple_of(4096) {
        let below = bytes / 4096 * 4096;
        let nearest = match (below, below.checked_add(4096)) {
            (0, _) => "4096".to_owned(),
            (below, Some(above)) => format!("{below} or {above}"),
            (below, None) => below.to_string(),
        };
        return Err(format!(
            "{bytes} bytes is not a multiple of 4096, the block size: the nearest is {nearest}"
        ));
    }
    Ok(bytes)
}

/// Reads a duration: `500ms`, `1s`, `2m`, `1h`.
///
/// # Errors
/// Says what is wrong and what can be written instead; zero is an error.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let too_long = || format!("'{text}' is longer than 64 bits of milliseconds hold");
    let unit_ms: u64 = match unit {
        _ if digits.is_empty() => {
            return Err(format!("'{text}' is no duration: write it as 500ms, 1s or 2m"));
        }
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "" => return Err(format!("'{text}' has no unit: write {text}ms, {text}s or {text}m")),
        _ => return Err(format!("'{text}': unknown unit '{unit}'; the units are ms, s, m and h")),
    };
    let count: u64 = digits.parse().map_err(|_| too_long())?;
    match count.checked_mul(unit_ms) {
        None => Err(too_long()),
        Some(0) => Err("a duration of nothing would fail every request".into()),
        Some(ms) => Ok(Duration::from_millis(ms)),
    }
}

/// A size as short as it can be said exactly: `64M`, `1T`, `4097`.
pub fn bytes_exact(bytes: u64) -> String {
    let unit = UNITS.into_iter().rev().find(|(_, shift)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    match unit {
        Some((letter, shift)) => format!("{}{letter}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// A size for people, with three digits: `1.50 GiB`.
pub fn bytes_human(bytes: u64) -> String {
    let Some((letter, shift)) = UNITS.into_iter().rev().find(|(_, shift)| bytes >> shift != 0) else {
        return format!("{bytes} B");
    };
    let hundredths = (u128::from(bytes) * 100) >> shift;
    let (whole, part) = (hundredths / 100, hundredths % 100);
    match whole {
        0..10 => format!("{whole}.{part:02} {letter}iB"),
        10..100 => format!("{whole}.{} {letter}iB", part / 10),
        _ => format!("{whole} {letter}iB"),
    }
}

/// A number with a comma between thousands: `1,048,576`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A moment in milliseconds since 1970 as `2026-11-23 23:44:45 UTC`.
pub fn utc(unix_ms: u64) -> String {
    lsvd_volume::utc(unix_ms).replace('T', " ").replace('Z', " UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1K", 1024),
            ("64M", 64 << 20),
            ("64m", 64 << 20),
            ("64MiB", 64 << 20),
            ("3G", 3 << 30),
            ("1T", 1 << 40),
            ("2P", 2 << 50),
            ("15E", 15 << 60),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_why() {
        for (text, words) in [
            ("", "no size"),
            ("M", "no size"),
            ("-1", "no size"),
            ("1.5T", "not a whole number"),
            ("64MB", "power of 1,000"),
            ("64kb", "power of 1,000"),
            ("64X", "unknown unit 'X'"),
            ("64 M", "unknown unit ' M'"),
            ("64Mi", "unknown unit"),
            ("1é", "unknown unit"),
            ("16E", "64 bits"),
            ("99999999999999999999", "64 bits"),
        ] {
            let error = parse_bytes(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_volume_is_whole_blocks() {
        assert_eq!(parse_volume_bytes("4096"), Ok(4096));
        for (text, words) in [
            ("0", "no bytes"),
            ("4097", "4096 or 8192"),
            ("1", "nearest is 4096"),
            ("18446744073709551615", "nearest is 18446744073709547520"),
        ] {
            let error = parse_volume_bytes(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for (text, words) in [
            ("5", "write 5ms, 5s or 5m"),
            ("s", "no duration"),
            ("0s", "nothing"),
            ("1d", "unknown unit"),
            ("99999999999999999h", "64 bits"),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn exact_sizes_are_read_back() {
        for bytes in [0, 1, 4097, 4096, 64 << 20, 1 << 40, 3 << 41, u64::MAX] {
            assert_eq!(parse_bytes(&bytes_exact(bytes)), Ok(bytes));
        }
        assert_eq!(bytes_exact(1 << 40), "1T");
    }

    #[test]
    fn for_people() {
        assert_eq!(bytes_human(1023), "1023 B");
        assert_eq!(bytes_human(3 << 29), "1.50 GiB");
        assert_eq!(bytes_human(40 << 20), "40.0 MiB");
        assert_eq!(bytes_human(u64::MAX), "15.9 EiB");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_048_576), "1,048,576");
        assert_eq!(grouped(999), "999");
    }

    #[test]
    fn moments() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(951_868_799_999), "2000-02-29 23:59:59 UTC");
        assert_eq!(utc(1_763_941_485_000), "2025-11-23 23:44:45 UTC");
    }
}
