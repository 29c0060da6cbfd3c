// SPDX-License-Identifier: Apache-2.0
//! Every file of an image as a line of text, to compare with what another tool unpacks.
//!
//! `path type mode=… uid=… gid=… mtime=s.ns nlink=…`, then by type `size=… sha256=…`, `link=…` or `rdev=major:minor`, then
//! `xattr:name=hex` each. Paths and link targets are escaped, spaces too, so that a line is words.

use crate::digest::{Digest, Hashing};
use crate::store::Image;
use isopod_index::format::Kind;
use isopod_index::{Content, Index, Ino};
use isopod_sys::map::FileMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;

/// The lines of an image, sorted by path; reads all of its contents.
pub fn lines(image: &Image) -> io::Result<impl Iterator<Item = io::Result<String>> + '_> {
    let index =
        Index::open(FileMap::new(&image.index)?).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    Ok(Lines { index, layers: &image.layers, way: Vec::new(), path: Vec::new(), begun: false })
}

struct Lines<'a> {
    index: Index<FileMap>,
    layers: &'a [File],
    /// The folders from the root to here: each with the next of its entries, and the length of its path.
    way: Vec<(Ino, u32, usize)>,
    path: Vec<u8>,
    begun: bool,
}

impl Iterator for Lines<'_> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<io::Result<String>> {
        if !self.begun {
            self.begun = true;
            self.way.push((Ino::ROOT, 0, 0));
            return Some(self.line(Ino::ROOT, b""));
        }
        loop {
            let (folder, next, len) = self.way.last_mut()?;
            let Some(entry) = self.index.entry_at(*folder, *next) else {
                self.way.pop();
                continue;
            };
            *next += 1;
            self.path.truncate(*len);
            self.path.push(b'/');
            self.path.extend_from_slice(entry.name);
            if entry.kind == Kind::Folder {
                self.way.push((entry.ino, 0, self.path.len()));
            }
            return Some(self.line(entry.ino, &self.path));
        }
    }
}

impl Lines<'_> {
    fn line(&self, ino: Ino, path: &[u8]) -> io::Result<String> {
        let inode = self.index.inode(ino).ok_or(ErrorKind::InvalidData)?;
        let kind = match inode.kind {
            Kind::File => "file",
            Kind::Folder => "dir",
            Kind::Symlink => "link",
            Kind::CharDevice => "char",
            Kind::BlockDevice => "block",
            Kind::Fifo => "fifo",
        };
        let mut line = format!(
            "{} {kind} mode={:04o} uid={} gid={} mtime={}.{:09} nlink={}",
            word(if path.is_empty() { b"/" } else { path }),
            inode.mode,
            inode.uid,
            inode.gid,
            inode.mtime.seconds,
            inode.mtime.nanoseconds,
            inode.nlink,
        );
        match inode.kind {
            Kind::File => {
                let _ = write!(line, " size={} sha256={}", inode.size, self.digest(ino)?.hex());
            }
            Kind::Symlink => {
                let target = self.index.link_target(ino).unwrap_or_default();
                let _ = write!(line, " link={}", word(target));
            }
            Kind::CharDevice | Kind::BlockDevice => {
                let _ = write!(line, " rdev={}:{}", inode.rdev.major, inode.rdev.minor);
            }
            Kind::Folder | Kind::Fifo => {}
        }
        for (name, value) in self.index.xattrs(ino) {
            let _ = write!(line, " xattr:{}=", word(name));
            for byte in value {
                let _ = write!(line, "{byte:02x}");
            }
        }
        Ok(line)
    }

    fn digest(&self, ino: Ino) -> io::Result<Digest> {
        let size = self.index.inode(ino).map_or(0, |inode| inode.size);
        let content = self.index.content(ino).ok_or(ErrorKind::InvalidData)?;
        let mut reader = Hashing::new(Reader { content, layers: self.layers, at: 0, size });
        io::copy(&mut reader, &mut io::sink())?;
        Ok(reader.finish().0)
    }
}

fn word(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace(' ', "\\x20")
}

/// A file's contents, holes and all.
struct Reader<'a> {
    content: Content<'a>,
    layers: &'a [File],
    at: u64,
    size: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.size - self.at).map_or(buf.len(), |left| left.min(buf.len()));
        let buf = &mut buf[..want];
        let n = match &self.content {
            Content::Inline(bytes) => (&bytes[usize::try_from(self.at).unwrap_or(usize::MAX)..]).read(buf)?,
            Content::Extents(extents) => {
                let next = extents.from(self.at).next();
                match next {
                    Some(e) if e.file_offset <= self.at => {
                        let within = self.at - e.file_offset;
                        let len = usize::try_from(e.len - within).map_or(buf.len(), |n| n.min(buf.len()));
                        let layer = self.layers.get(usize::from(e.layer)).ok_or(ErrorKind::InvalidData)?;
                        layer.read_exact_at(&mut buf[..len], e.data_offset + within)?;
                        len
                    }
                    next => {
                        let end = next.map_or(self.size, |e| e.file_offset);
                        let len = usize::try_from(end - self.at).map_or(buf.len(), |n| n.min(buf.len()));
                        buf[..len].fill(0);
                        len
                    }
                }
            }
        };
        self.at += n as u64;
        Ok(n)
    }
}
