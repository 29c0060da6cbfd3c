// SPDX-License-Identifier: Apache-2.0
//! Tells every file of a tree as a line, in the form of `isopod_image::tree`: `walk ROOT EVERY`.
//!
//! The tests run this one program in a guest, on the tree the guest sees, and on the host, on what another tool unpacked
//! from the same image; then the lines must be the same. `sha256=` is there for every `EVERY`th file of the walk, and
//! for a file too long to be read in a guest `ends=` is, the digest of a few places of it.
//!
//! What is mounted over is told as `mounted` and not looked into.
#![forbid(unsafe_code)]

use rustix::fs::{lgetxattr, llistxattr, major, minor};
use rustix::io::{Errno, Result as CallResult};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;
use std::{env, str};

type Result<T, E = Box<dyn Error>> = StdResult<T, E>;

/// A longer file is only looked at in places.
const WHOLE_MAX: u64 = 64 << 20;
/// How many places, the last aside, and how much of each.
const PLACES: u64 = 16;
const PLACE: [u8; 4096] = [0; 4096];

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let root = PathBuf::from(arguments.next().ok_or("walk ROOT EVERY")?);
    let every = arguments.next().and_then(|n| n.to_str()?.parse().ok()).ok_or("walk ROOT EVERY")?;
    let mounted = if root == Path::new("/") { mounts()? } else { BTreeSet::new() };
    let out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
    let mut walk = Walk { mounted, every, files: 0, out };
    env::set_current_dir(&root)?;
    walk.entry(Path::new("."), b"")?;
    Ok(walk.out.flush()?)
}

/// Where something is mounted, the root aside.
fn mounts() -> Result<BTreeSet<Vec<u8>>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| *point != "/");
    Ok(points.map(|point| point.as_bytes().to_vec()).collect())
}

struct Walk<O> {
    mounted: BTreeSet<Vec<u8>>,
    every: u64,
    files: u64,
    out: O,
}

impl<O: Write> Walk<O> {
    /// `path` leads from the current folder to the entry, `name` is what it is called in the tree.
    ///
    /// Going down takes a step of its own: a guest's kernel would take seconds to follow long paths from the root.
    fn entry(&mut self, path: &Path, name: &[u8]) -> Result<()> {
        let shown = word(if name.is_empty() { b"/" } else { name });
        if self.mounted.contains(name) {
            return Ok(writeln!(self.out, "{shown} mounted")?);
        }
        let about = fs::symlink_metadata(path)?;
        let line = self.line(path, &about).map_err(|e| format!("{shown}: {e}"))?;
        writeln!(self.out, "{shown} {line}")?;
        if !about.is_dir() {
            return Ok(());
        }
        env::set_current_dir(path)?;
        let mut names = fs::read_dir(".")?
            .map(|entry| Ok(entry?.file_name().into_vec()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        for below in names {
            let name = [name, b"/", &below].concat();
            self.entry(Path::new(&OsString::from_vec(below)), &name)?;
        }
        if !name.is_empty() {
            env::set_current_dir("..")?;
        }
        Ok(())
    }

    fn line(&mut self, path: &Path, about: &Metadata) -> Result<String> {
        let mut line = format!(
            "{} mode={:04o} uid={} gid={} mtime={}.{:09} nlink={}",
            kind(about),
            about.mode() & 0o7777,
            about.uid(),
            about.gid(),
            about.mtime(),
            about.mtime_nsec(),
            about.nlink(),
        );
        let is = about.file_type();
        if is.is_file() {
            write!(line, " size={}", about.len())?;
            self.files += 1;
            if about.len() > WHOLE_MAX {
                write!(line, " ends={}", hex(&places(&File::open(path)?, about.len())?))?;
            } else if self.files.is_multiple_of(self.every) {
                let mut digest = Sha256::new();
                io::copy(&mut File::open(path)?, &mut Digesting(&mut digest))?;
                write!(line, " sha256={}", hex(&digest.finalize()))?;
            }
        } else if is.is_symlink() {
            write!(line, " link={}", word(fs::read_link(path)?.as_os_str().as_bytes()))?;
        } else if is.is_char_device() || is.is_block_device() {
            write!(line, " rdev={}:{}", major(about.rdev()), minor(about.rdev()))?;
        }
        for (name, value) in xattrs(path)? {
            write!(line, " xattr:{}={}", word(&name), hex(&value))?;
        }
        Ok(line)
    }
}

fn kind(about: &Metadata) -> &'static str {
    let is = about.file_type();
    match () {
        () if is.is_file() => "file",
        () if is.is_dir() => "dir",
        () if is.is_symlink() => "link",
        () if is.is_char_device() => "char",
        () if is.is_block_device() => "block",
        () if is.is_fifo() => "fifo",
        () => "socket",
    }
}

/// Sorted by name.
fn xattrs(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = whole(|room| llistxattr(path, room))?;
    let mut names: Vec<_> = names.split(|b| *b == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut found = Vec::new();
    for name in names {
        let text = str::from_utf8(name)?;
        found.push((name.to_vec(), whole(|room| lgetxattr(path, text, room))?));
    }
    Ok(found)
}

/// Asks with little room first: a guest's kernel would take long to make much for what is mostly not there.
fn whole(ask: impl Fn(&mut [u8]) -> CallResult<usize>) -> CallResult<Vec<u8>> {
    let mut little = [0; 512];
    match ask(&mut little) {
        Ok(len) => Ok(little[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut much = vec![0; 64 << 10];
            let len = ask(&mut much)?;
            much.truncate(len);
            Ok(much)
        }
        Err(other) => Err(other),
    }
}

/// The digest of the ends of a file and of places spread between them.
fn places(file: &File, len: u64) -> io::Result<Vec<u8>> {
    let mut digest = Sha256::new();
    let mut place = PLACE;
    let last = len - PLACE.len() as u64;
    for n in 0..=PLACES {
        file.read_exact_at(&mut place, last / PLACES * n)?;
        digest.update(place);
    }
    file.read_exact_at(&mut place, last)?;
    digest.update(place);
    Ok(digest.finalize().to_vec())
}

struct Digesting<'a>(&'a mut Sha256);

impl Write for Digesting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn word(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace(' ', "\\x20")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
