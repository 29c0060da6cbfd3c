// SPDX-License-Identifier: Apache-2.0
//! Rust's code without what is not code: comments, strings and characters, as the compiler would tell them apart.

/// What stands for a string or a character.
const QUOTED: &str = "\"\"";

/// Lines with their number from 1, without comments and without what is quoted.
pub(super) fn code_lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    let code = code(text);
    let lines: Vec<String> = code.lines().map(str::to_owned).collect();
    (1..).zip(lines)
}

/// As many lines as before.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (len, instead) = if let Some(len) = comment(rest) {
            (len, " ")
        } else if let Some(len) = string(rest).or_else(|| character(rest)) {
            (len, QUOTED)
        } else {
            let len = match rest.find(|letter| !in_word(letter)) {
                Some(0) => first.len_utf8(),
                Some(len) => len,
                None => rest.len(),
            };
            (len, &rest[..len])
        };
        code.push_str(instead);
        let gone = &rest[..len];
        if instead != gone {
            code.extend(gone.chars().filter(|letter| *letter == '\n'));
        }
        rest = &rest[len..];
    }
    code
}

pub(super) fn in_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The length of a comment that `text` begins with. Those of several lines may be in each other.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let mut rest = text.strip_prefix("/*")?;
    let mut depth = 1;
    while depth > 0 {
        let Some(at) = rest.find("*/").into_iter().chain(rest.find("/*")).min() else {
            return Some(text.len());
        };
        if rest[at..].starts_with("/*") {
            depth += 1;
        } else {
            depth -= 1;
        }
        rest = &rest[at + 2..];
    }
    Some(text.len() - rest.len())
}

/// Of a string of any kind, its prefix included: a word is not looked into, so what begins one is one.
fn string(text: &str) -> Option<usize> {
    let raw = ["br", "cr", "r"].iter().find_map(|prefix| raw_string(text, text.strip_prefix(prefix)?));
    let plain =
        || ["b\"", "c\"", "\""].iter().find_map(|prefix| escaped(text, text.strip_prefix(prefix)?, '"'));
    raw.or_else(plain)
}

fn raw_string(text: &str, behind: &str) -> Option<usize> {
    let quoted = behind.trim_start_matches('#');
    let hashes = &behind[..behind.len() - quoted.len()];
    let quoted = quoted.strip_prefix('"')?;
    let begins = text.len() - quoted.len();
    let end = format!("\"{hashes}");
    Some(quoted.find(&end).map_or(text.len(), |at| begins + at + end.len()))
}

/// Up to the quote that is not escaped; `behind` is what is behind the first one.
fn escaped(text: &str, behind: &str, quote: char) -> Option<usize> {
    let mut letters = behind.char_indices();
    while let Some((at, letter)) = letters.next() {
        if letter == quote {
            return Some(text.len() - behind.len() + at + quote.len_utf8());
        }
        if letter == '\\' {
            letters.next();
        }
    }
    Some(text.len())
}

/// Of a character, or a byte behind its `b`. What has no second quote right behind one letter is a lifetime.
fn character(text: &str) -> Option<usize> {
    let behind = text.strip_prefix('\'')?;
    let mut letters = behind.chars();
    match (letters.next()?, letters.next()?) {
        ('\\', _) => escaped(text, behind, '\''),
        (letter, '\'') => Some(2 + letter.len_utf8()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::code_lines;

    fn lines(text: &str) -> Vec<String> {
        code_lines(text).map(|(_, line)| line).collect()
    }

    #[test]
    fn what_is_behind_a_quoted_quote_is_code() {
        for quote in ["'\"'", "b'\"'", "'\\\"'", "\"\\\"\"", "r\"\\\"", "br#\"\"\"#", "c\"\\\\\"", "'\\''"] {
            let line = lines(&format!("f({quote}); word"));
            assert!(line.len() == 1 && line[0].ends_with("); word"), "{quote}: {line:?}");
        }
    }

    #[test]
    fn what_is_quoted_is_no_code_on_any_of_its_lines() {
        assert_eq!(lines("a(\"word\nword\\\"word\nword\"); b\nc"), ["a(\"\"", "", "); b", "c"]);
        assert_eq!(lines("a(r#\"word\"\nword\"#); b"), ["a(\"\"", "); b"]);
    }

    #[test]
    fn comments_are_no_code_and_what_looks_like_one_in_a_string_is_none() {
        assert_eq!(
            lines("a // word\nb /* word /* word */\nword */ c"),
            ["a  ", "b  ", " c"].map(str::to_owned)
        );
        assert_eq!(lines("f(\"http://\"); b"), ["f(\"\"); b"]);
        assert_eq!(lines("f(\"/*\"); b"), ["f(\"\"); b"]);
    }

    #[test]
    fn a_lifetime_is_no_character() {
        assert_eq!(lines("fn f<'a, 'b>(a: &'a A) // '"), ["fn f<'a, 'b>(a: &'a A)  "]);
        assert_eq!(lines("r#type; bar(\"x\"); 'x: loop"), ["r#type; bar(\"\"); 'x: loop"]);
    }
}
