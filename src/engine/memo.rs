// SPDX-License-Identifier: Apache-2.0
//! What was found out about a file, remembered under the run root for as long as the file is the same.
//!
//! The same is what has the same place on the same device, the same length, and was not touched since: a write, a
//! truncation or a change of its times by anybody moves its change time, which nobody can set.

use rustix::fs::fstat;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process;

/// More than what is remembered takes.
const MOST: u64 = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    device: u64,
    inode: u64,
    links: u64,
    len: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

#[derive(Serialize, Deserialize)]
struct Memo<T> {
    of: Node,
    found: T,
}

impl Node {
    fn of(file: &File) -> io::Result<Self> {
        let stat = fstat(file)?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            links: stat.st_nlink,
            len: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        })
    }
}

/// What a file was before somebody began to find out about it: what is changed meanwhile is not what was found.
#[derive(Debug)]
pub(crate) struct Before(Option<Node>);

impl Before {
    pub(crate) fn of(file: &File) -> Self {
        // A file without a name will not be asked about again.
        Self(Node::of(file).ok().filter(|node| node.links > 0))
    }
}

/// What is remembered at `path` of `file`.
pub(crate) fn recall<T: DeserializeOwned>(path: &Path, file: &File) -> Option<T> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MOST).read_to_end(&mut text).ok()?;
    let memo: Memo<T> = serde_json::from_slice(&text).ok()?;
    (memo.of == Node::of(file).ok()?).then_some(memo.found)
}

/// To forget costs the time to find out again, nothing else: what goes wrong here is nobody's error.
pub(crate) fn remember<T: Serialize>(path: &Path, file: &Before, found: T) {
    let write = || -> io::Result<()> {
        let Before(Some(of)) = file else { return Ok(()) };
        let memo = Memo { of: of.clone(), found };
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let fresh = path.with_extension(format!("new.{}", process::id()));
        fs::write(&fresh, serde_json::to_vec(&memo)?)?;
        fs::rename(&fresh, path)
    };
    let _ = write();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write;

    #[test]
    fn what_was_found_out_is_remembered_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, memo) = (folder.path().join("file"), folder.path().join("run/memo.json"));
        fs::write(&path, "one").unwrap();
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(recall::<u32>(&memo, &file), None);
        remember(&memo, &Before::of(&file), 7u32);
        assert_eq!(recall::<u32>(&memo, &file), Some(7));
        (&file).write_all(b"!").unwrap();
        assert_eq!(recall::<u32>(&memo, &file), None);
    }

    #[test]
    fn another_file_or_nonsense_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let memo = folder.path().join("memo.json");
        let [one, two] = ["one", "two"].map(|name| File::create_new(folder.path().join(name)).unwrap());
        remember(&memo, &Before::of(&one), 7u32);
        assert_eq!(recall::<u32>(&memo, &two), None);
        fs::write(&memo, "{").unwrap();
        assert_eq!(recall::<u32>(&memo, &one), None);
    }
}
