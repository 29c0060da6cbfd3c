// SPDX-License-Identifier: Apache-2.0
//! Figures beside their aims, and any other table.

use crate::say;

/// One line: less is better.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    aim: Option<f64>,
    note: String,
}

impl Figure {
    pub(super) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, aim: None, note: String::new() }
    }

    pub(super) fn aim(self, aim: f64) -> Self {
        Self { aim: Some(aim), ..self }
    }

    pub(super) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn line(&self) -> String {
        let Self { what, value, unit, aim, note } = self;
        let verdict = match aim {
            // What could not be counted has not reached its aim either.
            Some(aim) if value.is_nan() || value > aim => "over",
            _ => "",
        };
        let aim = aim.map(|aim| format!("{} {unit:<3}", short(aim))).unwrap_or_default();
        let value = short(*value);
        format!("{what:<62} {value:>10} {unit:<3} {aim:>11}  {verdict:<4}  {note}").trim_end().to_owned()
    }
}

/// Enough digits to tell a small figure from nothing.
fn short(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.1 { format!("{value:.4}") } else { format!("{value:.2}") }
}

pub(super) fn figures(figures: &[Figure]) {
    say::line(format_args!("{:<62} {:>14} {:>11}", "WHAT", "HERE", "AIM"));
    figures.iter().for_each(|figure| say::line(figure.line()));
}

/// A first column of words, then columns of figures.
pub(super) fn columns(head: &[&str], rows: &[(String, Vec<String>)]) {
    let (first, rest) = head.split_first().unwrap_or((&"", &[]));
    let line = |what: &str, cells: &[&str]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>11}")).collect();
        say::line(format!("{what:<44}{cells}").trim_end());
    };
    line(first, rest);
    for (what, cells) in rows {
        line(what, &cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// A cell of a table; empty if there is no such figure.
pub(super) fn cell(value: f64) -> String {
    if value.is_nan() { String::new() } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn a_figure_over_its_aim_says_so() {
        let verdict = |value, aim| Figure::new("it", value, "ms").aim(aim).line().contains("over");
        assert!(verdict(2.0, 1.0) && verdict(f64::NAN, 1.0));
        assert!(!verdict(1.0, 1.0));
    }

    #[test]
    fn a_figure_without_an_aim_is_never_over() {
        assert!(Figure::new("it", 1e9, "").line().ends_with("1000000000.00"));
    }
}
