// SPDX-License-Identifier: Apache-2.0
//! `-e` and `--env-file`, by Docker's rules: a name without a value takes the value it has here, or is left out.

use isopod_engine::{EngineError, Kind, Result, Word};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The variables of the files, then those given by themselves.
pub(super) fn variables(
    files: &[PathBuf],
    given: &[OsString],
    here: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Vec<Word>> {
    let mut all = Vec::new();
    for path in files {
        let bytes = fs::read(path).map_err(|e| {
            EngineError::new(Kind::Io, format!("cannot read --env-file {}", path.display())).because(e)
        })?;
        all.extend(of_file(&bytes, path, &here)?);
    }
    for entry in given {
        if name_of(entry.as_bytes()).is_empty() {
            let what = format!("--env {} has no name before `=`", entry.display());
            return Err(EngineError::new(Kind::Invalid, what));
        }
        all.extend(completed(entry.as_bytes(), &here));
    }
    Ok(all)
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn of_file(bytes: &[u8], path: &Path, here: &impl Fn(&OsStr) -> Option<OsString>) -> Result<Vec<Word>> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut all = Vec::new();
    for (n, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let bad = |why: &str| {
            let what = format!("--env-file {}, line {}: {why}", path.display(), n + 1);
            EngineError::new(Kind::Invalid, what)
        };
        let name = name_of(line);
        if name.is_empty() {
            return Err(bad("no name before `=`"));
        }
        if name.iter().any(u8::is_ascii_whitespace) {
            return Err(bad("a name with white space in it"));
        }
        if line.contains(&0) {
            return Err(bad("a NUL byte"));
        }
        all.extend(completed(line, here));
    }
    Ok(all)
}

fn name_of(entry: &[u8]) -> &[u8] {
    entry.split(|b| *b == b'=').next().unwrap_or_default()
}

/// `NAME=value`; nothing if there is no value to be had.
fn completed(entry: &[u8], here: &impl Fn(&OsStr) -> Option<OsString>) -> Option<Word> {
    if entry.contains(&b'=') {
        return Word::new(entry);
    }
    let value = here(OsStr::from_bytes(entry))?;
    Word::new([entry, b"=", &value.into_vec()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice;

    fn here(name: &OsStr) -> Option<OsString> {
        (name == "HERE").then(|| "value".into())
    }

    fn shown(words: Vec<Word>) -> Vec<String> {
        words.iter().map(|w| w.shown().into_owned()).collect()
    }

    fn file(text: &str) -> Result<Vec<String>> {
        of_file(text.as_bytes(), Path::new("f"), &here).map(shown)
    }

    #[test]
    fn a_name_alone_takes_the_value_it_has_here_or_is_left_out() {
        let given = ["A=1", "HERE", "GONE", "EMPTY=", "B=x=y"].map(OsString::from);
        let all = shown(variables(&[], &given, here).unwrap());
        assert_eq!(all, ["A=1", "HERE=value", "EMPTY=", "B=x=y"]);
    }

    #[test]
    fn an_entry_without_a_name_is_refused() {
        assert!(variables(&[], &["=x".into()], here).is_err());
        assert!(variables(&[], &["".into()], here).is_err());
    }

    #[test]
    fn a_file_has_comments_blank_lines_and_leading_space() {
        let text = "\u{feff}# comment\n\n  A=1 \nHERE\nGONE\nB=a b # not a comment\r\n";
        assert_eq!(file(text).unwrap(), ["A=1 ", "HERE=value", "B=a b # not a comment"]);
    }

    #[test]
    fn a_files_bad_line_is_named() {
        let error = file("A=1\nB C=2\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(file("=1").is_err() && file("A=\0").is_err());
    }

    #[test]
    fn files_come_before_what_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        fs::write(&path, "A=1\n").unwrap();
        assert_eq!(shown(variables(slice::from_ref(&path), &["A=2".into()], here).unwrap()), ["A=1", "A=2"]);
        assert!(variables(&[folder.path().join("none")], &[], here).is_err());
    }
}
