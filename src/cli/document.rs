// SPDX-License-Identifier: Apache-2.0
//! A JSON document as it is asked for: whole, or what `--format` takes from it.
//!
//! Of Go's templates there are `{{.A.B}}`, `{{json .A}}` and `{{index .A "key" 0}}`. What is in a document may be a
//! stranger's, so that what would move a terminal's cursor is escaped: in JSON as JSON has it, which changes nothing of
//! what it means.

use super::error::Failure;
use super::format::{Part, parts};
use super::{human, output};
use isopod_engine::{EngineError, Kind};
use serde::Serialize;
use serde_json::Value;

/// How many of a document's fields an error lists.
const KNOWN_MAX: usize = 30;

/// Shows the things in one array, or each by the format that was asked for.
pub(super) fn show<T: Serialize>(things: &[T], format: Option<&str>) -> Result<(), Failure> {
    let values = things.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>();
    let values = values.map_err(|e| EngineError::new(Kind::Io, "cannot write JSON").because(e))?;
    match format {
        None => output::line(&printable(&serde_json::to_string_pretty(things).unwrap_or_default())),
        Some("json") => output::line(&printable(&serde_json::to_string(things).unwrap_or_default())),
        Some(text) => values.iter().try_for_each(|value| output::line(&filled(text, value)?)),
    }
}

/// A JSON text that no terminal takes for orders.
pub(super) fn printable(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if human::is_unprintable(c) && !matches!(c, '\n' | '\t') {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

fn filled(text: &str, document: &Value) -> Result<String, EngineError> {
    let mut out = String::new();
    for part in parts(text)? {
        match part {
            Part::Text(text) => out.push_str(&text),
            Part::Inside(inside) => out.push_str(&value(&inside, document).map_err(|e| bad(&inside, &e))?),
        }
    }
    Ok(out)
}

fn bad(inside: &str, why: &str) -> EngineError {
    let what = format!("--format is not possible: `{{{{{}}}}}`", inside.escape_debug());
    EngineError::new(Kind::Invalid, what)
        .because(why)
        .hint("there are {{.A.B}}, {{json .A}} and {{index .A \"key\"}}; {{json .}} is all of it")
}

/// What stands between two pairs of braces.
fn value(inside: &str, document: &Value) -> Result<String, String> {
    let words: Vec<&str> = inside.split_whitespace().collect();
    match words[..] {
        [path] => Ok(shown(at(path, document)?)),
        ["json", path] => Ok(printable(&at(path, document)?.to_string())),
        ["index", path, ref keys @ ..] => {
            keys.iter().try_fold(at(path, document)?, |value, key| entry(value, key)).map(shown)
        }
        _ => Err("this is none of them".to_owned()),
    }
}

/// The value at `.A.B`.
fn at<'a>(path: &str, document: &'a Value) -> Result<&'a Value, String> {
    let names = path.strip_prefix('.').ok_or("a field begins with a dot")?;
    names.split('.').filter(|name| !name.is_empty()).try_fold(document, |value, name| match value {
        Value::Null => Ok(value),
        Value::Object(fields) => fields.get(name).ok_or_else(|| {
            let known: Vec<String> = fields.keys().take(KNOWN_MAX).map(|name| human::plain(name)).collect();
            format!("no field is called `{}`; there are {}", name.escape_debug(), known.join(", "))
        }),
        _ => Err(format!("`{}` is looked for in what has no fields", name.escape_debug())),
    })
}

/// What a list has at a place, or a map under a key, which may be nothing.
fn entry<'a>(value: &'a Value, key: &str) -> Result<&'a Value, String> {
    let found = match value {
        Value::Array(list) => {
            let place = key.parse::<usize>().map_err(|_| "a place in a list is a number")?;
            return list.get(place).ok_or_else(|| format!("the list has {} entries", list.len()));
        }
        Value::Object(map) => map.get(key.trim_matches('"')),
        _ => None,
    };
    Ok(found.unwrap_or(&Value::Null))
}

/// As Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => human::plain(text),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| format!("{}:{}", human::plain(key), shown(value));
            format!("map[{}]", map.iter().map(pair).collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_lists_and_maps_are_shown_as_go_does() {
        let document = json!({"Id": "x", "N": 3, "No": null, "L": ["a", "b"], "M": {"k": "v", "b.c": true}});
        for (format, expected) in [
            ("{{.Id}}", "x"),
            ("<{{ .N }}> {{.L}}", "<3> [a b]"),
            ("{{.M}}", "map[b.c:true k:v]"),
            ("{{.M.k}}\\n", "v\n"),
            ("{{json .L}}", r#"["a","b"]"#),
            ("{{index .L 1}}", "b"),
            ("{{index .M \"b.c\"}}", "true"),
            ("{{index .M \"none\"}}", "<no value>"),
            ("{{.No.such}}", "<no value>"),
            ("plain", "plain"),
        ] {
            assert_eq!(filled(format, &document).unwrap(), expected, "{format}");
        }
        for bad in [
            "{{.id}}",
            "{{Id}}",
            "{{range .L}}",
            "{{index .L 2}}",
            "{{index .L x}}",
            "{{.Id",
            "{{}}",
            "{{.Id.x}}",
        ] {
            assert!(filled(bad, &document).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_would_move_a_cursor_is_escaped_and_means_the_same() {
        let text = json!({"a\u{9b}": "\u{202e}\u{7f}\u{1b}é"}).to_string();
        let escaped = printable(&text);
        assert_eq!(escaped, r#"{"a\u009b":"\u202e\u007f\u001bé"}"#);
        assert_eq!(
            serde_json::from_str::<Value>(&escaped).unwrap(),
            serde_json::from_str::<Value>(&text).unwrap()
        );
    }
}
