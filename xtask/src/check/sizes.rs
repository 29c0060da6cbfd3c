// SPDX-License-Identifier: Apache-2.0
//! Files stay small enough to be read in one sitting, and say at their head what they are.

use super::at;
use super::sources::Source;

const MOST_LINES: usize = 600;
const LICENSE: &str = "// SPDX-License-Identifier: Apache-2.0";

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    sources.iter().flat_map(check_one).collect()
}

fn check_one(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = source.text.lines();
    if lines.next() != Some(LICENSE) {
        found.push(format!("{}: the first line is not `{LICENSE}`", at(source, 1)));
    }
    // The tests of a module say what they are by standing beside it.
    let beside = source.path.ends_with("tests.rs");
    if !beside && !lines.next().is_some_and(|line| line.starts_with("//! ")) {
        found.push(format!("{}: no `//!` says what this file is", at(source, 2)));
    }
    let length = source.text.lines().count();
    if length > MOST_LINES && !source.is_test() {
        found.push(format!("{}: {length} lines, {MOST_LINES} are the most", at(source, length)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{LICENSE, check};
    use crate::check::sources::Source;

    fn source(path: &str, text: String) -> [Source; 1] {
        [Source { path: path.into(), text }]
    }

    #[test]
    fn a_small_file_with_its_head_is_fine() {
        assert!(check(&source("a.rs", format!("{LICENSE}\n//! A.\n"))).is_empty());
    }

    #[test]
    fn a_file_without_a_head_is_found_twice() {
        assert_eq!(check(&source("a.rs", "fn main() {}\n".into())).len(), 2);
    }

    #[test]
    fn a_long_file_is_found_unless_it_is_a_test() {
        let text = format!("{LICENSE}\n//! A.\n{}", "\n".repeat(600));
        assert_eq!(check(&source("src/a.rs", text.clone())).len(), 1);
        assert!(check(&source("src/a/tests.rs", text.clone())).is_empty());
        assert!(check(&source("tests/a.rs", text)).is_empty());
    }
}
