// SPDX-License-Identifier: Apache-2.0
//! Patterns of names, as Go's `path.Match` has them: `*` and `?` stand for anything but a `/`, `[a-z]` and `[^a-z]` for one
//! character, and `\` takes the next one as it is.

use std::iter::Peekable;
use std::str::Chars;

/// A pattern, part by part between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Vec<Piece>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Same(char),
    Among(Vec<(char, char)>),
    NotAmong(Vec<(char, char)>),
}

impl Pattern {
    /// `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = vec![Vec::new()];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let piece = match c {
                '/' => {
                    parts.push(Vec::new());
                    continue;
                }
                '*' => Piece::Any,
                '?' => Piece::One,
                '[' if chars.next_if_eq(&'^').is_some() => Piece::NotAmong(ranges(&mut chars)?),
                '[' => Piece::Among(ranges(&mut chars)?),
                '\\' => Piece::Same(chars.next()?),
                c => Piece::Same(c),
            };
            parts.last_mut()?.push(piece);
        }
        Some(Self(parts))
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let parts: Vec<&str> = text.split('/').collect();
        let fits =
            |(pieces, text): (&Vec<Piece>, &&str)| part_matches(pieces, &text.chars().collect::<Vec<_>>());
        self.0.len() == parts.len() && self.0.iter().zip(&parts).all(fits)
    }
}

/// What stands between brackets; at least one character.
fn ranges(chars: &mut Peekable<Chars<'_>>) -> Option<Vec<(char, char)>> {
    let one = |chars: &mut Peekable<Chars<'_>>| match chars.next()? {
        '\\' => chars.next(),
        '-' | ']' => None,
        c => Some(c),
    };
    let mut found = Vec::new();
    while found.is_empty() || chars.next_if_eq(&']').is_none() {
        let low = one(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { one(chars)? } else { low };
        found.push((low, high));
    }
    Some(found)
}

/// Only the last `*` ever has to give way, so that no pattern takes longer than its length times the text's.
fn part_matches(pieces: &[Piece], text: &[char]) -> bool {
    let (mut piece, mut at) = (0, 0);
    let mut last_any = None;
    while at < text.len() {
        match pieces.get(piece) {
            Some(Piece::Any) => {
                piece += 1;
                last_any = Some((piece, at));
            }
            Some(one) if one.fits(text[at]) => {
                piece += 1;
                at += 1;
            }
            _ => {
                let Some((after, from)) = last_any else { return false };
                last_any = Some((after, from + 1));
                (piece, at) = (after, from + 1);
            }
        }
    }
    pieces[piece..].iter().all(|rest| *rest == Piece::Any)
}

impl Piece {
    fn fits(&self, c: char) -> bool {
        let among = |ranges: &[(char, char)]| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
        match self {
            Self::Any | Self::One => true,
            Self::Same(same) => *same == c,
            Self::Among(ranges) => among(ranges),
            Self::NotAmong(ranges) => !among(ranges),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn a_star_stops_at_a_slash() {
        for (pattern, text, expected) in [
            ("alpine", "alpine", true),
            ("alp*", "alpine", true),
            ("*", "alpine", true),
            ("*", "user/alpine", false),
            ("*/*", "user/alpine", true),
            ("a*i*e", "alpine", true),
            ("a*i*x", "alpine", false),
            ("*e:*", "alpine:3.20", true),
            ("alpin?", "alpine", true),
            ("alpin?", "alpin", false),
            ("[a-c]lpine", "alpine", true),
            ("[^a-c]lpine", "alpine", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["[", "[]", "[a", "[a-", "[a-]", "[-a]", "\\"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn many_stars_do_not_take_long() {
        assert!(!matches(&"*a".repeat(2000), &"a".repeat(1999)));
    }
}
