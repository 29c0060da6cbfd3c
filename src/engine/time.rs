// SPDX-License-Identifier: Apache-2.0
//! Moments as they are written in images and typed by people.

use std::ops::Range;
use std::time::Duration;

/// Seconds since the epoch of a time as RFC 3339 has it; fractions are dropped.
pub fn rfc3339(text: &str) -> Option<u64> {
    let number = |range: Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), rest) => {
            let (h, m) = rest.split_once(':')?;
            let within = |text: &str, most: i64| text.parse().ok().filter(|n| (0..=most).contains(n));
            let seconds = (within(h, 23)? * 60 + within(m, 59)?) * 60;
            if sign == "+" { seconds } else { -seconds }
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

/// The other way, in UTC.
pub(crate) fn rfc3339_of(moment: u64) -> String {
    let (days, second) = (i64::try_from(moment / 86_400).unwrap_or(0), moment % 86_400);
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12 + 1;
    let year = era * 400 + year + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since 1970-01-01 of the Gregorian calendar, counted in eras of 400 years that begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The moment before which something was to have happened, as Docker takes it: seconds since the epoch, RFC 3339 or the
/// beginning of it (in UTC), or how long ago.
pub(crate) fn moment(text: &str, now: u64) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let (Ok(seconds), true) = (seconds.parse(), fraction.bytes().all(|b| b.is_ascii_digit())) {
        return Some(seconds);
    }
    let wholes = [text.to_owned(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")];
    wholes.iter().find_map(|whole| rfc3339(whole)).or_else(|| Some(now.saturating_sub(go_duration(text)?)))
}

/// Whole seconds of a duration in Go's words: `24h`, `1h30m`, `1.5h`.
fn go_duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let letters = &rest[digits..];
        let end = letters.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(letters.len());
        let unit = match &letters[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum += number * unit;
        rest = &letters[end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(sum).ok()).flatten().map(|d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        assert_eq!(rfc3339_of(951_782_400), "2000-02-29T00:00:00Z");
        for moment in (0..5_000_000_000).step_by(86_399 * 7) {
            assert_eq!(rfc3339(&rfc3339_of(moment)), Some(moment));
        }
    }

    #[test]
    fn times_are_read_with_their_zone() {
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339("2024-02-29T12:30:45.123456789Z"), Some(1_709_209_845));
        assert_eq!(rfc3339("2024-02-29T13:30:45+01:00"), Some(1_709_209_845));
        for bad in [
            "",
            "2024",
            "2024-13-01T00:00:00Z",
            "2024-01-01T00:00:00",
            "1900-01-01T00:00:00Z",
            "ääääääääääääääääääää",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn moments_are_typed_in_several_ways() {
        for (text, seconds) in [
            ("1709209845", Some(1_709_209_845)),
            ("1709209845.5", Some(1_709_209_845)),
            ("2024-02-29T12:30:45Z", Some(1_709_209_845)),
            ("2024-02-29T12:30:45", Some(1_709_209_845)),
            ("2024-02-29T12:30", Some(1_709_209_800)),
            ("2024-02-29", Some(1_709_164_800)),
            ("24h", Some(2_000_000_000 - 86_400)),
            ("1h30m", Some(2_000_000_000 - 5400)),
            ("1.5h", Some(2_000_000_000 - 5400)),
            ("900ms", Some(2_000_000_000)),
            ("99999999999999999999h", None),
            ("", None),
            ("h", None),
            ("3", Some(3)),
            ("3d", None),
            ("yesterday", None),
        ] {
            assert_eq!(moment(text, 2_000_000_000), seconds, "{text}");
        }
    }
}
