// SPDX-License-Identifier: Apache-2.0
//! How much unsafe code there is, room by room: it may not grow unnoticed, and each piece says why it is sound.

use super::at;
use super::code::{code_lines, in_word};
use super::sources::Source;
use crate::say;
use std::collections::BTreeMap;
use std::iter;

/// Most blocks in what is shipped and its unit tests. A test's own kernel, below `tests`, runs in a guest alone.
const MOST_BLOCKS: usize = 72;
/// How far above the word the comment may begin, with the statement in between.
const NEAR: usize = 8;

/// What the word begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    /// Of a trait that the compiler cannot check.
    Impl,
    /// One that its caller must justify.
    Function,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    blocks: usize,
    impls: usize,
    functions: usize,
}

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut rooms: BTreeMap<String, Count> = BTreeMap::new();
    let mut found = Vec::new();
    for source in sources {
        for (line, kind) in uses(&source.text) {
            let count = rooms.entry(room(source)).or_default();
            match kind {
                Kind::Block => count.blocks += 1,
                Kind::Impl => count.impls += 1,
                Kind::Function => count.functions += 1,
            }
            if kind != Kind::Function && !is_justified(&source.text, line) {
                found.push(format!("{}: no `// SAFETY:` says why it is sound", at(source, line)));
            }
        }
    }
    let shipped = rooms.iter().filter(|(room, _)| *room != "tests").map(|(_, count)| count);
    let all = shipped.fold(Count::default(), |sum, room| Count {
        blocks: sum.blocks + room.blocks,
        impls: sum.impls + room.impls,
        functions: sum.functions + room.functions,
    });
    say::line(format_args!("  {:<14} {:>6} {:>6} {:>6}", "unsafe in", "blocks", "impls", "fns"));
    for (room, Count { blocks, impls, functions }) in
        rooms.iter().chain([(&"all but tests".to_owned(), &all)])
    {
        say::line(format_args!("  {room:<14} {blocks:>6} {impls:>6} {functions:>6}"));
    }
    if all.blocks > MOST_BLOCKS {
        found.push(format!("{} blocks of unsafe code, {MOST_BLOCKS} are the most", all.blocks));
    }
    found
}

/// `src/sys/map.rs` is of `src/sys`, `xtask/src/main.rs` of `xtask`.
fn room(source: &Source) -> String {
    let mut parts = source.path.iter().map(|part| part.to_string_lossy());
    match (parts.next(), parts.next()) {
        (Some(first), Some(second)) if first == "src" => format!("{first}/{second}"),
        (first, _) => first.unwrap_or_default().into_owned(),
    }
}

/// Each use of the word in code, with its line.
fn uses(text: &str) -> Vec<(usize, Kind)> {
    let lines: Vec<(usize, String)> = code_lines(text).collect();
    let mut tokens = lines.iter().flat_map(|(number, line)| tokens(line).map(move |token| (*number, token)));
    let mut found = Vec::new();
    while let Some((number, token)) = tokens.next() {
        if token != concat!("un", "safe") {
            continue;
        }
        let kind = match tokens.next() {
            Some((_, "impl")) => Kind::Impl,
            Some((_, "fn" | "extern" | "trait")) => Kind::Function,
            // An attribute: a name for the linker.
            Some((_, "(")) => continue,
            _ => Kind::Block,
        };
        found.push((number, kind));
    }
    found
}

/// Words, and all else character by character.
fn tokens(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line.trim_start();
    iter::from_fn(move || {
        let first = rest.chars().next()?;
        let len =
            if in_word(first) { rest.find(|c| !in_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (token, behind) = rest.split_at(len);
        rest = behind.trim_start();
        Some(token)
    })
}

/// Whether a comment right above the statement says SAFETY.
fn is_justified(text: &str, line: usize) -> bool {
    let above = text.lines().take(line).skip(line.saturating_sub(NEAR));
    above.into_iter().any(|line| line.trim_start().starts_with("// SAFETY: "))
}

#[cfg(test)]
mod tests {
    use super::{Kind, MOST_BLOCKS, check, uses};
    use crate::check::sources::Source;

    const WORD: &str = concat!("un", "safe");

    #[test]
    fn blocks_impls_and_functions_are_told_apart() {
        let text = format!(
            "let a = {WORD} {{ f() }};\n{WORD}\n{{ g() }}\n{WORD} impl Send for A {{}}\n{WORD} fn h() {{}}\n\
             // {WORD} {{ }}\nlet b = \"{WORD} {{\"; let {WORD}_code = 1;\n#[{WORD}(no_mangle)]\n"
        );
        assert_eq!(uses(&text), [(1, Kind::Block), (2, Kind::Block), (4, Kind::Impl), (5, Kind::Function)]);
    }

    #[test]
    fn no_quote_hides_a_block() {
        for before in ["'\"'", "b'\"'", "\"of two\nlines\"", "r#\"a \" in it\"#"] {
            assert_eq!(uses(&format!("f({before}); {WORD} {{ g() }}")).len(), 1, "{before}");
        }
    }

    fn source(text: String) -> [Source; 1] {
        [Source { path: "src/sys/a.rs".into(), text }]
    }

    #[test]
    fn a_block_without_its_reason_is_found() {
        assert!(check(&source(format!("// SAFETY: so.\nlet a = {WORD} {{ f() }};"))).is_empty());
        assert_eq!(check(&source(format!("// So.\nlet a = {WORD} {{ f() }};"))).len(), 1);
    }

    #[test]
    fn too_many_blocks_are_found() {
        let many = format!("// SAFETY: so.\n{WORD} {{ f() }};\n").repeat(MOST_BLOCKS + 1);
        assert_eq!(check(&source(many)).len(), 1);
    }
}
