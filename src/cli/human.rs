// SPDX-License-Identifier: Apache-2.0
//! Numbers as people read and write them, in Docker's words.

use isopod_engine::rfc3339;
use std::time::{SystemTime, UNIX_EPOCH};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// Seconds since the epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// `About an hour`, `3 days`.
pub(super) fn duration(seconds: u64) -> String {
    let hours = (seconds + HOUR / 2) / HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "About a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 730 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long before `now` that was.
pub(super) fn ago(at: u64, now: u64) -> String {
    format!("{} ago", duration(now.saturating_sub(at)))
}

/// The same of what an image says, RFC 3339 if it is anything.
pub(super) fn said_ago(at: Option<&str>) -> String {
    at.and_then(rfc3339).map_or_else(|| "N/A".to_owned(), |at| ago(at, now()))
}

/// As much of a hash as a table shows.
pub(super) fn short(hex: &str) -> &str {
    hex.get(..12).unwrap_or(hex)
}

/// What was typed or came with an image, on one line of a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unprintable(c) { '\u{fffd}' } else { c }).collect()
}

/// What moves a cursor, or turns the direction of the text after it around (Unicode Standard Annex 9).
pub(super) fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Decimal units and three digits: `7.8MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    // In hundredths, so that no float is needed; rounding may carry into the next unit.
    let in_unit = |unit: u32| {
        let divisor = 1000u128.pow(unit);
        rounded((u128::from(bytes) * 100 + divisor / 2) / divisor)
    };
    let units = (0u32..).zip(UNITS);
    let fits = |(unit, _): &(u32, &str)| in_unit(*unit) < 100_000;
    let (unit, name) = units.clone().find(fits).or_else(|| units.last()).unwrap_or((0, UNITS[0]));
    let shown = in_unit(unit);
    let (whole, part) = (shown / 100, shown % 100);
    let number = if part == 0 {
        whole.to_string()
    } else {
        format!("{whole}.{part:02}").trim_end_matches('0').to_owned()
    };
    format!("{number}{name}")
}

/// To three significant digits.
fn rounded(hundredths: u128) -> u128 {
    let step = match hundredths {
        0..1000 => 1,
        1000..10_000 => 10,
        _ => 100,
    };
    (hundredths + step / 2) / step * step
}

/// `64m`, `1.5g`, `512MiB`, `1048576`: binary units, as Docker takes them for memory.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        "p" | "pb" | "pi" | "pib" => 50,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let unit = 1u64 << shift;
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || part.len() > 9 || !all_digits(part) {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(part.len()).ok()?);
    let part: u128 = if part.is_empty() { 0 } else { part.parse().ok()? };
    let extra = u64::try_from(u128::from(unit) * part / scale).ok()?;
    whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * HOUR;

    #[test]
    fn durations_are_in_dockers_words() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * HOUR, "2 hours"),
            (3 * DAY, "3 days"),
            (15 * DAY, "2 weeks"),
            (90 * DAY, "3 months"),
            (800 * DAY, "2 years"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\x1b[31m\n\u{9b}b\u{202e}c"), "a\u{fffd}[31m\u{fffd}\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (7_800_000, "7.8MB"),
            (77_840_000, "77.8MB"),
            (778_400_000, "778MB"),
            (999_999, "1MB"),
            (1_234_567_890, "1.23GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn sizes_are_read_with_binary_units() {
        let cases = [
            ("64m", Some(64 << 20)),
            ("64M", Some(64 << 20)),
            ("64MiB", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("0.5k", Some(512)),
            ("1048576", Some(1 << 20)),
            ("8b", Some(8)),
            ("", None),
            ("m", None),
            ("-1m", None),
            ("1x", None),
            ("1.2.3m", None),
            ("99999999999999999999", None),
            ("99999999p", None),
        ];
        for (text, bytes_) in cases {
            assert_eq!(bytes(text), bytes_, "{text}");
        }
    }
}
