// SPDX-License-Identifier: Apache-2.0
//! `docs/attacks.md` maps each known bug to the tests that would find it here: each row is there, and so is each test.

use super::sources::Source;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

pub(super) const TABLE: &str = "docs/attacks.md";

/// The rows there must be: letter, and how many.
const ROWS: [(char, u32); 4] = [('A', 26), ('B', 17), ('F', 12), ('H', 15)];

pub(super) fn check(table: &str, sources: &[Source]) -> Vec<String> {
    let functions = functions(sources);
    let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for (number, line) in (1..).zip(table.lines()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, row, _, _, tests, _] = cells[..] else { continue };
        if !is_row(row) {
            continue;
        }
        *rows.entry(row).or_default() += 1;
        let mut named = tests.split('`').skip(1).step_by(2).peekable();
        if named.peek().is_none() && !tests.starts_with("none: ") {
            found.push(format!("{TABLE}:{number}: row {row} has neither a test nor `none: ` and why"));
        }
        for name in named.filter(|name| !is_there(name, &functions)) {
            found.push(format!("{TABLE}:{number}: row {row} names `{name}`, which is no test of this tree"));
        }
    }
    let due = ROWS.iter().flat_map(|(letter, most)| (1..=*most).map(move |n| format!("{letter}{n}")));
    for row in due.filter(|row| rows.get(row.as_str()) != Some(&1)) {
        found.push(format!("{TABLE}: row {row} is there {} times", rows.get(row.as_str()).unwrap_or(&0)));
    }
    found
}

fn is_row(cell: &str) -> bool {
    let mut letters = cell.chars();
    let known = letters.next().is_some_and(|first| ROWS.iter().any(|(letter, _)| *letter == first));
    known && letters.as_str().parse::<u32>().is_ok()
}

/// `file::test`, where `file` is the name of the file, or of the folder of a `mod.rs` or `tests.rs`.
fn is_there(name: &str, functions: &HashSet<(String, String)>) -> bool {
    let pair = name.split_once("::");
    pair.is_some_and(|(file, test)| functions.contains(&(file.to_owned(), test.to_owned())))
}

/// Every test, every check of the suite that each device stands, and every fuzz target, with what its file may be called.
fn functions(sources: &[Source]) -> HashSet<(String, String)> {
    let mut found = HashSet::new();
    for source in sources {
        let file = called(&source.path);
        if source.path.starts_with("fuzz") {
            found.insert(("fuzz".to_owned(), file.clone()));
        }
        let suite = file == "conformance";
        let mut marked = false;
        for line in source.text.lines().map(str::trim_start) {
            let function = line.split_once("fn ").filter(|_| marked || suite && line.starts_with("pub "));
            if let Some((_, rest)) = function {
                let name = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                found.insert((file.clone(), name));
            }
            // Between the mark and its function there may be another one.
            marked = line.starts_with("#[test]") || marked && line.starts_with("#[");
        }
    }
    found
}

fn called(path: &Path) -> String {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    match stem(path).unwrap_or_default().as_str() {
        "mod" | "tests" => path.parent().and_then(stem).unwrap_or_default(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{ROWS, check};
    use crate::check::sources::Source;

    fn tree() -> [Source; 2] {
        let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        [file("tests/killing.rs", "#[test]\nfn it_ends() {}\n\nfn it_helps() {}\n"), file("fuzz/fuse.rs", "")]
    }

    fn table(last: &str) -> String {
        let rows = ROWS.iter().flat_map(|(letter, most)| (1..=*most).map(move |n| format!("{letter}{n}")));
        rows.map(|row| {
            format!("| {row} | a bug | yes | {} |\n", if row == "H15" { last } else { "none: so" })
        })
        .collect()
    }

    #[test]
    fn a_table_of_tests_that_are_there_is_fine() {
        assert_eq!(check(&table("`killing::it_ends`, `fuzz::fuse`"), &tree()), Vec::<String>::new());
    }

    #[test]
    fn a_test_that_is_gone_is_found_and_so_is_a_row_without_one() {
        for last in [
            "`killing::it_went`",
            "`killing::it_helps`",
            "`start::it_ends`",
            "`fuzz::nothing`",
            "`it_ends`",
            "later",
            "",
        ] {
            assert_eq!(check(&table(last), &tree()).len(), 1, "{last}");
        }
    }

    #[test]
    fn a_row_that_is_missing_or_there_twice_is_found() {
        let whole = table("none: so");
        assert_eq!(check(&whole.replace("| B3 |", "| B4 |"), &tree()).len(), 2);
    }
}
