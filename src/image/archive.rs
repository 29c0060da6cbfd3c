// SPDX-License-Identifier: Apache-2.0
//! Where images come from when they come as files: an OCI layout folder, an OCI archive, a `docker save` archive.
//!
//! A folder is entered through its descriptor, one fixed name at a time, and no link is followed: `index.json`, and
//! `blobs/sha256/` with 64 hexadecimal digits. An archive's members are found by name in a table; their names, and what links
//! between them say, are looked up in that table and nowhere else.

use crate::compress::{AtMost, Form, Plain};
use crate::config::Platform;
use crate::content::Staging;
use crate::error::{During, ImageError, Kind, Result};
use crate::limits::{DOCUMENT_MAX, Limits, MEMBERS_MAX};
use crate::manifest::{Descriptor, Listing, Saved};
use crate::registry::{self, Remote};
use crate::strict;
use crate::tar::{Archive, Type};
use rustix::fs::{Mode, OFlags, open, openat};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

const SPOOL: &str = "spool";
/// Members with longer names are none of ours.
const NAME_MAX: usize = 512;
/// Links from member to member.
const LINKS_MAX: usize = 8;

/// Somewhere images are.
#[derive(Debug)]
pub(crate) enum Source {
    Folder(OwnedFd),
    Members(Members),
    Remote(Box<Remote>),
}

/// What a source says it has.
#[derive(Debug)]
pub(crate) enum Contents {
    Oci(Listing),
    Docker(Vec<Saved>),
}

impl Source {
    pub(crate) fn open(path: &Path, staging: &Staging, limits: &Limits) -> Result<Self> {
        let what = format!("cannot open {}", path.display());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = open(path, flags, Mode::empty()).during(&what)?;
        let file = File::from(fd);
        let kind = file.metadata().during(&what)?.file_type();
        if kind.is_dir() {
            return Ok(Self::Folder(file.into()));
        }
        if !kind.is_file() {
            return Err(ImageError::new(Kind::Unsupported, what)
                .because(io::Error::other("neither a file nor a folder")));
        }
        Members::open(file, staging, limits).map(Self::Members).map_err(|e| e.within(what))
    }

    pub(crate) fn from_reader(reader: impl Read, staging: &Staging, limits: &Limits) -> Result<Self> {
        Members::spool(reader, staging, limits).map(Self::Members)
    }

    /// Whether what it gives may have been changed on its way.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    /// Which image of an index is wanted.
    pub(crate) fn platform(&self) -> &Platform {
        static HOST: LazyLock<Platform> = LazyLock::new(Platform::host);
        match self {
            Self::Remote(remote) => remote.platform(),
            Self::Folder(_) | Self::Members(_) => &HOST,
        }
    }

    pub(crate) fn contents(&self) -> Result<Contents> {
        if let Self::Remote(remote) = self {
            return Ok(Contents::Oci(registry::listing(remote)));
        }
        if let Some(index) = self.document("index.json")? {
            return strict::parse("index.json", &index).map(Contents::Oci);
        }
        match self {
            Self::Members(members) if members.find("manifest.json").is_some() => {
                let saved = self.document("manifest.json")?.unwrap_or_default();
                strict::parse("manifest.json", &saved).map(Contents::Docker)
            }
            _ => Err(ImageError::invalid(
                "there is neither an OCI image (index.json) nor one of `docker save` (manifest.json)",
            )),
        }
    }

    /// A document by its fixed name, if it is there.
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let reader: Box<dyn Read + '_> = match self {
            Self::Folder(folder) => match open_beneath(folder, &[name]) {
                Ok(file) => Box::new(file),
                Err(e) if e.kind() == Kind::NotFound => return Ok(None),
                Err(e) => return Err(e),
            },
            Self::Members(members) => match members.find(name) {
                Some(section) => Box::new(section),
                None => return Ok(None),
            },
            Self::Remote(_) => return Ok(None),
        };
        let mut bytes = Vec::new();
        reader.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes).during(format_args!("cannot read {name}"))?;
        Ok(Some(bytes))
    }

    /// What a descriptor leads to; the caller checks what it reads.
    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>> {
        let digest = &descriptor.digest;
        match self {
            Self::Remote(remote) => remote.open(descriptor),
            Self::Folder(folder) => Ok(Box::new(open_beneath(folder, &["blobs", "sha256", &digest.hex()])?)),
            Self::Members(members) => self.member_of(members, &format!("blobs/sha256/{}", digest.hex())),
        }
    }

    /// A member by the name another document gives it.
    pub(crate) fn member(&self, name: &str) -> Result<Box<dyn Read + '_>> {
        match self {
            Self::Members(members) => self.member_of(members, name),
            Self::Folder(_) | Self::Remote(_) => Err(missing(name)),
        }
    }

    fn member_of<'a>(&'a self, members: &'a Members, name: &str) -> Result<Box<dyn Read + 'a>> {
        members.find(name).map(|section| Box::new(section) as Box<dyn Read>).ok_or_else(|| missing(name))
    }
}

fn missing(name: &str) -> ImageError {
    let shown: String = name.chars().take(200).flat_map(char::escape_debug).collect();
    ImageError::new(Kind::Invalid, format_args!("`{shown}` is missing"))
}

/// Opens a regular file by fixed names, following no link at any of them.
fn open_beneath(folder: &OwnedFd, names: &[&str]) -> Result<File> {
    let what = || format!("cannot open {}", names.join("/"));
    let mut here = folder.as_fd().try_clone_to_owned().during(what())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    for name in names {
        here = openat(&here, *name, flags, Mode::empty()).during(what())?;
    }
    let file = File::from(here);
    if !file.metadata().during(what())?.is_file() {
        return Err(ImageError::invalid(what()).because(io::Error::other("not a regular file")));
    }
    Ok(file)
}

/// An archive that can be read in any order, and where its members are.
#[derive(Debug)]
pub(crate) struct Members {
    file: File,
    table: HashMap<String, Member>,
}

#[derive(Debug, Clone)]
enum Member {
    At(u64, u64),
    Link(String),
}

impl Members {
    /// An archive as it is if it is plain; decompressed into the staging folder if not.
    fn open(file: File, staging: &Staging, limits: &Limits) -> Result<Self> {
        let mut start = [0; 4];
        let n = file.read_at(&mut start, 0).during("cannot read it")?;
        match Form::of(&start[..n]) {
            Form::Plain => Self::scan(file),
            _ => Self::spool(file, staging, limits),
        }
    }

    fn spool(reader: impl Read, staging: &Staging, limits: &Limits) -> Result<Self> {
        let mut spool = staging.create_file(SPOOL)?;
        // Nobody needs its name.
        staging.remove_file(SPOOL);
        let plain = Plain::new(reader).during("cannot decompress it")?;
        io::copy(&mut AtMost::new(plain, limits.layer_bytes), &mut spool).during("cannot decompress it")?;
        spool.seek(SeekFrom::Start(0)).during("cannot read it again")?;
        Self::scan(spool)
    }

    fn scan(file: File) -> Result<Self> {
        let malformed = |e| ImageError::invalid("not a tar archive, or a broken one").because(e);
        let mut table = HashMap::new();
        let mut archive = Archive::new(BufReader::new(&file));
        while let Some(entry) = archive.next_entry().map_err(malformed)? {
            if table.len() >= MEMBERS_MAX {
                return Err(ImageError::new(
                    Kind::TooLarge,
                    format_args!("it has more than {MEMBERS_MAX} members"),
                ));
            }
            let Some(name) = normal("", &entry.name) else {
                continue;
            };
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let member = match entry.kind {
                Type::File if entry.pieces.is_none() => Some(Member::At(archive.position(), entry.size)),
                Type::HardLink => normal("", &entry.link).map(Member::Link),
                Type::Symlink => normal(folder, &entry.link).map(Member::Link),
                _ => None,
            };
            if let Some(member) = member {
                table.insert(name, member);
            }
        }
        Ok(Self { file, table })
    }

    fn find(&self, name: &str) -> Option<Section<'_>> {
        let mut name = normal("", name.as_bytes())?;
        for _ in 0..LINKS_MAX {
            match self.table.get(&name)? {
                Member::At(offset, len) => {
                    return Some(Section { file: &self.file, offset: *offset, left: *len });
                }
                Member::Link(to) => name.clone_from(to),
            }
        }
        None
    }
}

/// A name without `.`, `..` and doubled slashes, from a folder; none if it leads out of the archive.
fn normal(folder: &str, name: &[u8]) -> Option<String> {
    if name.len() > NAME_MAX {
        return None;
    }
    let name = str::from_utf8(name).ok()?;
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/")).filter(|name| !name.is_empty() && !name.starts_with('/'))
}

/// A part of a file, read without moving its cursor.
#[derive(Debug)]
struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let n = self.file.read_at(&mut buf[..want], self.offset)?;
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_named_within_their_archive_only() {
        assert_eq!(normal("", b"./blobs//sha256/./a").as_deref(), Some("blobs/sha256/a"));
        assert_eq!(normal("b", b"../a/layer.tar").as_deref(), Some("a/layer.tar"));
        assert_eq!(normal("b", b"../../etc/passwd"), None);
        assert_eq!(normal("", b"."), None);
        assert_eq!(normal("", b"\xff"), None);
    }
}
