// SPDX-License-Identifier: Apache-2.0
//! PAX extended headers (POSIX.1-2001): records `length key=value\n` that overrule the block they precede.

use super::{Entry, TarError};
use isopod_index::Time;

/// Prefix of extended attributes as star and GNU tar write them: raw bytes.
const SCHILY: &[u8] = b"SCHILY.xattr.";
/// As libarchive writes them: names percent-encoded, values in base64.
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

/// The records of one header, in order.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, TarError> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            // Some writers pad a header with NULs.
            if bytes.iter().all(|b| *b == 0) {
                break;
            }
            let (record, rest) = split(bytes).ok_or(TarError::Record(None))?;
            let equals = record.iter().position(|b| *b == b'=').ok_or(TarError::Record(None))?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if key.is_empty() || key.contains(&0) {
                return Err(TarError::Record(None));
            }
            records.push((key.to_vec(), value.to_vec()));
            bytes = rest;
        }
        Ok(Self(records))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last value of a key; an empty one takes back those before it.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        let last = self.0.iter().rev().find(|(k, _)| k == key.as_bytes());
        last.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }

    /// All values of two keys, in the order they were given.
    pub(super) fn all<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0.iter().filter_map(move |(k, v)| Some((k.strip_prefix(prefix.as_bytes())?, v.as_slice())))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, TarError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        decimal(value).map(Some).ok_or_else(|| TarError::Record(Some(key.to_owned())))
    }

    /// Overrules what the block said; `stored` is the length of the contents in the archive.
    pub(super) fn apply(&self, entry: &mut Entry, stored: &mut u64) -> Result<(), TarError> {
        let small = |key: &str| -> Result<Option<u32>, TarError> {
            let number = self.number(key)?;
            number.map(|n| u32::try_from(n).map_err(|_| TarError::Record(Some(key.to_owned())))).transpose()
        };
        for (key, name) in [("path", &mut entry.name), ("linkpath", &mut entry.link)] {
            if let Some(value) = self.get(key) {
                if value.contains(&0) {
                    return Err(TarError::NulInName);
                }
                *name = value.to_vec();
            }
        }
        entry.uid = small("uid")?.unwrap_or(entry.uid);
        entry.gid = small("gid")?.unwrap_or(entry.gid);
        entry.device.0 = small("SCHILY.devmajor")?.unwrap_or(entry.device.0);
        entry.device.1 = small("SCHILY.devminor")?.unwrap_or(entry.device.1);
        *stored = self.number("size")?.unwrap_or(*stored);
        if let Some(value) = self.get("mtime") {
            entry.mtime = time(value).ok_or_else(|| TarError::Record(Some("mtime".to_owned())))?;
        }
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(SCHILY) {
                entry.xattrs.insert(name.to_vec(), value.clone());
            } else if let Some(name) = key.strip_prefix(LIBARCHIVE) {
                let bad = || TarError::Record(Some(String::from_utf8_lossy(key).into_owned()));
                let name = percent_decoded(name).ok_or_else(bad)?;
                let value = base64_decoded(value).ok_or_else(bad)?;
                entry.xattrs.entry(name).or_insert(value);
            }
        }
        Ok(())
    }
}

/// The first record without its length and newline, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|b| *b == b' ')?;
    let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let (record, rest) = bytes.split_at_checked(len)?;
    Some((record.get(space + 1..)?.strip_suffix(b"\n")?, rest))
}

/// Digits and nothing else, below 2^62.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let digit =
        |n: u64, b: &u8| b.is_ascii_digit().then(|| n.checked_mul(10)?.checked_add(u64::from(b - b'0')))?;
    text.iter().try_fold(0u64, digit).filter(|n| *n < 1 << 62)
}

/// Seconds with a fraction, rounded down to nanoseconds; perhaps before the epoch.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let dot = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain([b'0'; 9].iter()).take(9);
    let nanoseconds = digits.fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, nanoseconds) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (pair, after) = rest.split_at_checked(2)?;
            out.push(digit(&pair[0])? << 4 | digit(&pair[1])?);
            rest = after;
        } else {
            out.push(*first);
        }
    }
    Some(out)
}

fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let value = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let text = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.chunks(4) {
        let bits = group.iter().try_fold(0u32, |n, b| Some(n << 6 | u32::from(value(*b)?)))?;
        let bytes = (bits << (6 * (4 - group.len()))).to_be_bytes();
        out.extend_from_slice(bytes.get(1..group.len())?);
    }
    Some(out)
}
