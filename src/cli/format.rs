// SPDX-License-Identifier: Apache-2.0
//! `--format`: `json`, or text with `{{.Field}}` in it, `table` before it for a heading; as much of Docker's templates as
//! is typed by hand.

use super::error::Failure;
use super::output;
use clap::Args;
use isopod_engine::{EngineError, Kind};
use std::fmt::Write;

/// A thing to be listed, by the names of its fields.
pub(super) type Fields = Vec<(&'static str, String)>;

/// Shows the things as asked for.
pub(super) fn show(format: &str, things: &[Fields], known: &[&str]) -> Result<(), Failure> {
    if format == "json" {
        return things.iter().try_for_each(|fields| output::line(&json(fields)));
    }
    let (table, text) = match format.strip_prefix("table ") {
        Some(text) => (true, text),
        None => (false, format),
    };
    let template = Template::parse(text, known)?;
    if !table {
        return things.iter().try_for_each(|fields| output::line(&template.filled(fields)));
    }
    let cells = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let mut rows = vec![cells(template.heading())];
    rows.extend(things.iter().map(|fields| cells(template.filled(fields))));
    output::table(&rows)
}

/// A table's column: its heading, and the field that is in it.
pub(super) type Column = (&'static str, &'static str);

/// How a list is asked for.
#[derive(Debug, Clone, Args)]
pub(super) struct ListArgs {
    /// Only the names or ids
    #[arg(short, long)]
    quiet: bool,
    /// `json`, or text with fields in it, each as `{{.FIELD}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Lists the things: as asked for, or `quiet`, each by its first field, or as a table.
pub(super) fn list(
    asked: &ListArgs,
    things: &[Fields],
    columns: &[Column],
    known: &[&str],
) -> Result<(), Failure> {
    debug_assert!(columns.iter().all(|(_, name)| known.contains(name)), "a column without a field");
    match (&asked.format, asked.quiet) {
        (Some(format), _) => show(format, things, known),
        (None, true) => {
            things.iter().filter_map(|fields| fields.first()).try_for_each(|(_, value)| output::line(value))
        }
        (None, false) => table(things, columns),
    }
}

pub(super) fn table(things: &[Fields], columns: &[Column]) -> Result<(), Failure> {
    let heading = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let value = |fields: &Fields, name: &str| {
        fields.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let row = |fields: &Fields| columns.iter().map(|(_, name)| value(fields, name)).collect();
    output::table(&[heading].into_iter().chain(things.iter().map(row)).collect::<Vec<_>>())
}

/// A part of a format: what stands between two pairs of braces, or text, with its `\t` and `\n` taken for what they are.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    Text(String),
    Inside(String),
}

pub(super) fn parts(text: &str) -> Result<Vec<Part>, EngineError> {
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) = after.split_once("}}").ok_or_else(|| bad("`{{` without `}}`".into()))?;
        parts.extend([Part::Text(before.to_owned()), Part::Inside(inside.trim().to_owned())]);
        rest = after;
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

fn bad(why: String) -> EngineError {
    EngineError::new(Kind::Invalid, format!("--format is not possible: {why}"))
}

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Field(String),
    Json,
}

#[derive(Debug, PartialEq)]
struct Template(Vec<Piece>);

impl Template {
    fn parse(text: &str, known: &[&str]) -> Result<Self, EngineError> {
        let piece = |part| match part {
            Part::Text(text) => Ok(Piece::Text(text)),
            Part::Inside(inside) if inside == "json ." => Ok(Piece::Json),
            Part::Inside(field) => match field.strip_prefix('.').filter(|name| known.contains(name)) {
                Some(name) => Ok(Piece::Field(name.to_owned())),
                None => {
                    let hint = format!("fields are {}, and `json .` is all of them", known.join(", "));
                    Err(bad(format!("no field is called `{}`", field.escape_debug())).hint(hint))
                }
            },
        };
        parts(text)?.into_iter().map(piece).collect::<Result<_, _>>().map(Self)
    }

    fn filled(&self, fields: &Fields) -> String {
        self.with(
            |name| fields.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v).to_owned(),
            || json(fields),
        )
    }

    fn heading(&self) -> String {
        self.with(str::to_uppercase, String::new)
    }

    fn with(&self, field: impl Fn(&str) -> String, whole: impl Fn() -> String) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field(name) => field(name),
            Piece::Json => whole(),
        };
        self.0.iter().map(piece).collect()
    }
}

fn json(fields: &Fields) -> String {
    let members: Vec<String> =
        fields.iter().map(|(name, value)| format!("\"{name}\":{}", quoted(value))).collect();
    format!("{{{}}}", members.join(","))
}

/// A JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() && u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing() -> Fields {
        vec![("ID", "abc".to_owned()), ("Name", "a \"b\"\u{1}".to_owned())]
    }

    fn filled(text: &str) -> String {
        Template::parse(text, &["ID", "Name"]).unwrap().filled(&thing())
    }

    #[test]
    fn fields_are_filled_in() {
        assert_eq!(filled("{{.ID}}"), "abc");
        assert_eq!(filled("<{{ .ID }}>\\t{{.ID}}"), "<abc>\tabc");
        assert_eq!(filled("plain"), "plain");
    }

    #[test]
    fn json_is_escaped() {
        assert_eq!(filled("{{json .}}"), r#"{"ID":"abc","Name":"a \"b\"\u0001"}"#);
    }

    #[test]
    fn an_unknown_field_is_an_error_that_lists_the_known() {
        let error = Template::parse("{{.Nme}}", &["ID", "Name"]).unwrap_err();
        assert!(error.advice().unwrap().contains("ID, Name"));
        assert!(Template::parse("{{.ID", &["ID"]).is_err());
    }

    #[test]
    fn a_tables_heading_is_its_fields_names() {
        assert_eq!(Template::parse("{{.ID}}\\t{{.Name}}", &["ID", "Name"]).unwrap().heading(), "ID\tNAME");
    }
}
