// SPDX-License-Identifier: Apache-2.0
//! Whether a table's parts agree: what a builder owes and a fuzzer attacks.

use crate::build::good_name;
use crate::format::{FILE_MAX, Kind, NAME_MAX, PATH_MAX, Use, XATTR_MAX, at, halves, layout, marks};
use crate::read::{Content, Device, Index, Ino, View};
use thiserror::Error;

/// The first contradiction found: in which inode, and about what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a table that contradicts itself: inode {ino}, {what}")]
pub struct Corrupt {
    pub ino: u32,
    pub what: &'static str,
}

impl<B: AsRef<[u8]>> Index<B> {
    /// Checks everything once: each inode reachable, folders a tree, names sorted, link counts exact, contents in
    /// range. Takes 4 bytes of memory for each inode.
    pub fn verify(&self) -> Result<(), Corrupt> {
        verify(&self.view())
    }
}

fn verify(view: &View<'_>) -> Result<(), Corrupt> {
    let mut links = vec![0u32; at(view.inodes())];
    let mut dirents = 0;
    let mut bytes = 0u64;
    let root = view.inode(Ino::ROOT).map(|inode| inode.kind);
    if root != Some(Kind::Folder) || view.parent(Ino::ROOT) != Some(Ino::ROOT) {
        return Err(Corrupt { ino: 1, what: "not a root" });
    }
    for ino in 1..=view.inodes() {
        let wrong = |what| Corrupt { ino, what };
        let (record, ..) = view.record(Ino(ino)).ok_or(wrong("no record"))?;
        let kind = record.kind().ok_or(wrong("no such type"))?;
        if record.mtime_ns >= 1_000_000_000 {
            return Err(wrong("nanoseconds"));
        }
        if view.header.used == Use::Image && record.marks & !marks::IMPLICIT != 0 {
            return Err(wrong("a layer's mark in an image"));
        }
        match kind {
            Kind::Folder => {
                let (first, count) = halves(record.payload);
                if first != dirents {
                    return Err(wrong("entries not in order"));
                }
                check_folder(view, Ino(ino), &mut links).map_err(wrong)?;
                dirents = first.checked_add(count).ok_or(wrong("too many entries"))?;
            }
            Kind::File => {
                bytes = bytes.checked_add(record.size).ok_or(wrong("sum of sizes"))?;
                check_contents(view, Ino(ino), record.layout).map_err(wrong)?;
            }
            Kind::Symlink => {
                let target = view.link_target(Ino(ino)).ok_or(wrong("no target"))?;
                if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) {
                    return Err(wrong("bad target"));
                }
            }
            Kind::CharDevice | Kind::BlockDevice => {
                let (major, minor) = halves(record.payload);
                if major > Device::MAJOR_MAX || minor > Device::MINOR_MAX {
                    return Err(wrong("device numbers"));
                }
            }
            Kind::Fifo => {}
        }
        check_xattrs(view, Ino(ino)).map_err(wrong)?;
    }
    if dirents != view.dirents() || bytes != view.header.bytes {
        return Err(Corrupt { ino: 0, what: "sums differ from the header's" });
    }
    check_links(view, &links)
}

/// Entries in range, well named, sorted, and of the kind they say; subfolders numbered higher and theirs alone.
fn check_folder(view: &View<'_>, dir: Ino, links: &mut [u32]) -> Result<(), &'static str> {
    let (record, ..) = view.record(dir).ok_or("no record")?;
    let (first, count) = halves(record.payload);
    let end = first.checked_add(count).ok_or("too many entries")?;
    let mut last: &[u8] = &[];
    for n in first..end {
        let entry = view.dirent(n).ok_or("an entry out of range")?;
        if !good_name(entry.name) || entry.name <= last {
            return Err("names not sorted, or bad");
        }
        last = entry.name;
        let inode = view.inode(entry.ino).ok_or("an entry without inode")?;
        if inode.kind != entry.kind {
            return Err("an entry of another kind than its inode");
        }
        if entry.kind == Kind::Folder && (entry.ino <= dir || view.parent(entry.ino) != Some(dir)) {
            return Err("a subfolder that is not in it");
        }
        let names = links.get_mut(at(entry.ino.0) - 1).ok_or("an entry without inode")?;
        if entry.kind == Kind::Folder && *names != 0 {
            return Err("a folder with two names");
        }
        *names += 1;
        if entry.kind == Kind::Folder {
            *links.get_mut(at(dir.0) - 1).ok_or("no record")? += 1;
        }
    }
    Ok(())
}

fn check_contents(view: &View<'_>, ino: Ino, form: u8) -> Result<(), &'static str> {
    let size = view.inode(ino).ok_or("no record")?.size;
    if size > FILE_MAX {
        return Err("too large a file");
    }
    let extents = match view.content(ino).ok_or("contents out of range")? {
        Content::Inline(_) => return Ok(()),
        Content::Extents(extents) => extents,
    };
    if form == layout::MANY && extents.is_empty() {
        return Err("no pieces");
    }
    let mut end = 0;
    for n in 0..extents.len() {
        let e = extents.get(n).ok_or("a piece out of range")?;
        if e.file_offset < end || e.len == 0 || u64::from(e.layer) >= u64::from(view.header.layers) {
            return Err("pieces out of order, empty, or of no layer");
        }
        end =
            e.file_offset.checked_add(e.len).filter(|end| *end <= size).ok_or("a piece outside its file")?;
    }
    Ok(())
}

fn check_xattrs(view: &View<'_>, ino: Ino) -> Result<(), &'static str> {
    let (_, _, set) = view.record(ino).ok_or("no record")?;
    if set == 0 {
        return Ok(());
    }
    let count = view.xattr_count(ino).ok_or("attributes out of range")?;
    let (mut sum, mut seen) = (0, 0);
    let mut last: &[u8] = &[];
    for (name, value) in view.xattrs(ino) {
        if name <= last || name.len() > NAME_MAX || name.contains(&0) {
            return Err("attributes not sorted, or badly named");
        }
        last = name;
        sum += name.len() + value.len();
        seen += 1;
    }
    if seen == 0 || seen != count || sum > XATTR_MAX {
        return Err("attributes cut short or too large");
    }
    Ok(())
}

/// Link counts as counted; a folder has one name (the root none), and itself counts.
fn check_links(view: &View<'_>, links: &[u32]) -> Result<(), Corrupt> {
    for (ino, counted) in (1u32..).zip(links) {
        let inode = view.inode(Ino(ino)).ok_or(Corrupt { ino, what: "no record" })?;
        let own = u32::from(inode.kind == Kind::Folder) + u32::from(ino == 1);
        if *counted == 0 && ino != 1 {
            return Err(Corrupt { ino, what: "has no name" });
        }
        if counted.checked_add(own) != Some(inode.nlink) {
            return Err(Corrupt { ino, what: "link count" });
        }
    }
    Ok(())
}
