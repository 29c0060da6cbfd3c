// SPDX-License-Identifier: Apache-2.0
//! `docs/attacks.md` maps each known bug to the tests that would find it here: each row is there, and so is each test.

use super::code::in_word;
use super::sources::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::Path;

pub(super) const TABLE: &str = "docs/attacks.md";
/// Where the fuzz targets are listed.
const TARGETS: &str = "fuzz/lib.rs";

/// The rows there must be: letter, and how many.
const ROWS: [(char, u32); 4] = [('A', 26), ('B', 17), ('F', 12), ('H', 15)];

pub(super) fn check(table: &str, sources: &[Source]) -> Vec<String> {
    let places = places(sources);
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
        let wrong = named.filter_map(|name| Some((name, wrong_with(name, &places)?)));
        found.extend(wrong.map(|(name, why)| format!("{TABLE}:{number}: row {row} names `{name}`, {why}")));
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

/// Where each test is: what its file may be called and its own name, and the files that have one of these names.
type Places<'s> = BTreeMap<(String, String), BTreeSet<&'s Path>>;

/// What is wrong with `file::test`, where `file` is the name of the file, or of the folder of a `mod.rs` or `tests.rs`.
fn wrong_with(name: &str, places: &Places<'_>) -> Option<&'static str> {
    let pair = name.split_once("::").map(|(file, test)| (file.to_owned(), test.to_owned()));
    match pair.and_then(|pair| places.get(&pair)).map(BTreeSet::len) {
        Some(1) => None,
        // If one of them went, nobody would notice.
        Some(_) => Some("which is several tests of this tree"),
        None => Some("which is no test of this tree"),
    }
}

/// Every test, every check of the suite that each device stands, and every fuzz target.
fn places(sources: &[Source]) -> Places<'_> {
    let mut found = Places::new();
    for source in sources {
        let file = called(&source.path);
        let mut put = |file: &str, test: &str| {
            found.entry((file.to_owned(), test.to_owned())).or_default().insert(source.path.as_path());
        };
        tests(&source.text).for_each(|test| put(&file, test));
        if file == "conformance" {
            suite(&source.text).for_each(|check| put(&file, check));
        }
        if source.path == Path::new(TARGETS) {
            targets(&source.text).for_each(|target| put("fuzz", target));
        }
    }
    found
}

/// The functions that are run as tests.
fn tests(text: &str) -> impl Iterator<Item = &str> {
    let (mut marked, mut ignored) = (false, false);
    text.lines().map(str::trim_start).filter_map(move |line| {
        // Before the mark and between it and its function there may be others.
        if line.starts_with("#[") {
            marked |= line.starts_with("#[test]");
            ignored |= line.contains("ignore");
            return None;
        }
        let is_test = mem::take(&mut marked) & !mem::take(&mut ignored);
        line.split_once("fn ").filter(|_| is_test).map(|(_, rest)| word(rest))
    })
}

/// What the suite's macro makes a test of by its name alone; the others have the mark.
fn suite(text: &str) -> impl Iterator<Item = &str> {
    let list = text.split_once("suite!(@plain").and_then(|(_, rest)| rest.split_once(')'));
    list.into_iter().flat_map(|(list, _)| list.split_whitespace())
}

/// The modules in the list of targets.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let list = text.split_once("const TARGETS").and_then(|(_, rest)| rest.split_once("];"));
    let lines = list.into_iter().flat_map(|(list, _)| list.lines());
    lines.filter_map(|line| Some(line.split_once("\", ")?.1.split_once("::")?.0))
}

/// The name that `text` begins with.
fn word(text: &str) -> &str {
    &text[..text.find(|letter| !in_word(letter)).unwrap_or(text.len())]
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

    fn tree() -> Vec<Source> {
        let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        vec![
            file("tests/killing.rs", "#[test]\nfn it_ends() {}\n\nfn it_helps() {}\n"),
            file(
                "tests/slow.rs",
                "#[test]\n#[ignore = \"long\"]\nfn it_waits() {}\n#[test]\nfn it_runs() {}\n",
            ),
            file("a/fs.rs", "#[test]\nfn it_reads() {}\n#[test]\nfn it_writes() {}\n"),
            file("b/fs/tests.rs", "#[test]\nfn it_reads() {}\n"),
            file(
                "a/conformance/mod.rs",
                "pub fn it_starts() {}\npub fn it_stops() {}\nsuite!(@plain\n    it_starts\n);\n",
            ),
            file(
                "fuzz/lib.rs",
                "pub const TARGETS: &[(&str, Body)] = &[\n    (\"f\", fuse::requests),\n];\n",
            ),
            file("fuzz/fuse.rs", ""),
            file("fuzz/machine.rs", ""),
        ]
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
        let named =
            "`killing::it_ends`, `slow::it_runs`, `fs::it_writes`, `conformance::it_starts`, `fuzz::fuse`";
        assert_eq!(check(&table(named), &tree()), Vec::<String>::new());
    }

    #[test]
    fn a_test_that_is_gone_is_found_and_so_is_a_row_without_one() {
        for last in [
            "`killing::it_went`",
            "`killing::it_helps`",
            "`start::it_ends`",
            "`fuzz::nothing`",
            // Not run, in no suite, no target, one of two.
            "`slow::it_waits`",
            "`conformance::it_stops`",
            "`fuzz::machine`",
            "`fuzz::lib`",
            "`fs::it_reads`",
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
