// SPDX-License-Identifier: Apache-2.0
//! A layer's tar stream becomes a data file and an index, in one pass: the file that meets what strangers made.
//!
//! Names stay in the index. None of them ever reaches the kernel, so that no name can lead anywhere on the host; what is
//! refused here is refused because it can only be meant to, or because it means nothing.
//!
//! *Names.* Relative, or `/` or `./` alone for the root. A leading `./`, doubled slashes and `.` within are passed over. An
//! absolute name or one with `..` is refused.
//!
//! *Folders on the way.* A folder of this layer is entered. A symbolic link of this layer is followed if it leads to a
//! place in the tree by a relative path, and refused if it is absolute or climbs out of the root: no tool that packs a
//! tree writes names through its own links. What this layer does not know is noted as a folder nobody described; if
//! a lower layer has a link there, merging follows it within the image's root, absolute or not, as umoci does. A file on
//! the way is refused.
//!
//! *Hard links.* The target is a path in the image, with or without a leading slash, without `..`. It is looked for in this
//! layer, then, when merging, in those below. Attributes of the entry itself mean nothing, as in umoci.
//!
//! *Whiteouts.* `.wh.name` takes `name` away from lower layers, `.wh..wh..opq` hides all of the folder's; other names
//! that begin with `.wh..wh.` are aufs's own files and mean nothing. None is a folder.
//!
//! *Attributes.* `security.selinux`, `system.nfs4_acl` and `trusted.overlay.*` are dropped: the first two belong to the machine
//! that packed the layer, the third would speak to the guest's overlayfs.

use crate::compress::{AtMost, Meter, Metered, Plain};
use crate::data::{Data, DataError};
use crate::digest::{Digest, Hashing};
use crate::limits::{INLINE_SUM_MAX, Limits, TRAILER_MAX};
use crate::tar::{Archive, Entry, TarError, Type};
use isopod_index::build::{Found, Node};
use isopod_index::format::{INLINE_MAX, PATH_MAX, Use};
use isopod_index::{Attributes, Body, BuildError, Device, Tree};
use std::io::{self, Read, Write};
use thiserror::Error;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";
/// Symbolic links followed on one way, as in Linux (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;
/// Names looked up on the ways of all entries together: a bound no layer needs and a hostile one cannot stretch.
const STEPS_MAX: u64 = 100_000_000;

#[derive(Debug, Error)]
pub(crate) enum Cause {
    #[error("an absolute name")]
    AbsoluteName,
    #[error("a name with `..`")]
    DotDot,
    #[error("a name of {0} bytes, more than the {PATH_MAX} allowed")]
    NameTooLong(usize),
    #[error("the root can only be a folder")]
    RootNotAFolder,
    #[error("a name through the symbolic link `{}`, which leads out of the tree to `{}`", .link.escape_ascii(), .target.escape_ascii())]
    LinkOut { link: Vec<u8>, target: Vec<u8> },
    #[error("too many symbolic links on the way")]
    LinkLoop,
    #[error("the layer has more than the {0} bytes allowed")]
    OverBudget(u64),
    #[error("the layer's names have more than {STEPS_MAX} folders on their ways together")]
    TooManySteps,
    #[error("a hard link to `{}`, which leads out of the tree", .0.escape_ascii())]
    HardLinkOut(Vec<u8>),
    #[error("a whiteout that names nothing, or that is a folder")]
    BadWhiteout,
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error(transparent)]
    Tree(#[from] BuildError),
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
}

/// Why a layer is refused, and at which entry (or after which, if the next could not be read).
#[derive(Debug, Error)]
#[error("{}", .entry.describe())]
pub(crate) struct LayerError {
    pub(crate) entry: At,
    #[source]
    pub(crate) cause: Cause,
}

#[derive(Debug)]
pub(crate) enum At {
    Start,
    Entry(Vec<u8>),
    After(Vec<u8>),
    End,
}

impl At {
    fn describe(&self) -> String {
        // A name may be long: its end says more than its beginning.
        let short = |name: &[u8]| {
            let start = name.len().saturating_sub(200);
            format!("{}{}", if start > 0 { "…" } else { "" }, name[start..].escape_ascii())
        };
        match self {
            Self::Start => "at its first entry".to_owned(),
            Self::Entry(name) => format!("entry `{}`", short(name)),
            Self::After(name) => format!("after entry `{}`", short(name)),
            Self::End => "at its end".to_owned(),
        }
    }
}

/// What came out of a layer's stream.
#[derive(Debug)]
pub(crate) struct Unpacked<W> {
    /// Of the decompressed stream.
    pub(crate) diff_id: Digest,
    pub(crate) tree: Tree,
    pub(crate) data: W,
}

/// Reads a compressed layer to its very end. The source comes back, so that its digest can be taken.
pub(crate) fn unpack<R: Read, W: Write>(
    source: R,
    data: W,
    limits: &Limits,
) -> Result<(Unpacked<W>, R), LayerError> {
    let start = |e| LayerError { entry: At::Start, cause: Cause::Read(e) };
    let meter = Meter::default();
    let source = Metered::new(source, meter.clone());
    let plain = AtMost::new(Plain::new(source).map_err(start)?, limits.layer_bytes);
    let mut archive = Archive::new(Hashing::new(plain));
    let mut layer = Layer {
        tree: Tree::new(Use::Layer, limits.layer_metadata),
        data: Data::new(data, meter),
        budget: limits.layer_bytes,
        inline: 0,
        steps: 0,
    };
    loop {
        let entry = match archive.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(cause) => {
                let entry = match archive.last_name() {
                    (name, true) => At::Entry(name.to_vec()),
                    (b"", false) => At::Start,
                    (name, false) => At::After(name.to_vec()),
                };
                return Err(LayerError { entry, cause: cause.into() });
            }
        };
        let result = layer.check_budget(&archive).and_then(|()| layer.add(&mut archive, &entry));
        result.map_err(|cause| LayerError { entry: At::Entry(entry.name), cause })?;
    }
    let end = |cause| LayerError { entry: At::End, cause };
    archive.finish(TRAILER_MAX).map_err(|e| end(e.into()))?;
    let (plain, diff_id, _) = archive.into_inner().into_parts();
    let mut source = plain.into_inner().into_inner().into_inner();
    io::copy(&mut source, &mut io::sink()).map_err(|e| end(Cause::Read(e)))?;
    let data = layer.data.into_inner();
    Ok((Unpacked { diff_id, tree: layer.tree, data }, source))
}

struct Layer<W> {
    tree: Tree,
    data: Data<W>,
    /// Most bytes the archive may have.
    budget: u64,
    /// Bytes of files in the index.
    inline: u64,
    /// Names looked up so far.
    steps: u64,
}

impl<W: Write> Layer<W> {
    /// An entry that says it is too large is not read to find out.
    fn check_budget<R: Read>(&self, archive: &Archive<R>) -> Result<(), Cause> {
        if archive.position().saturating_add(archive.left()) > self.budget {
            return Err(Cause::OverBudget(self.budget));
        }
        Ok(())
    }

    fn add<R: Read>(&mut self, archive: &mut Archive<R>, entry: &Entry) -> Result<(), Cause> {
        let path = components(&entry.name)?;
        let attributes = attributes(entry);
        let Some((&name, way)) = path.split_last() else {
            if entry.kind != Type::Folder {
                return Err(Cause::RootNotAFolder);
            }
            return Ok(self.tree.describe_root(&attributes)?);
        };
        if way.iter().any(|name| name.starts_with(WHITEOUT)) {
            return Err(Cause::BadWhiteout);
        }
        let folder = self.enter(way)?;
        if let Some(gone) = name.strip_prefix(WHITEOUT) {
            return self.take_away(folder, name, gone, entry.kind);
        }
        let device = Device { major: entry.device.0, minor: entry.device.1 };
        let body = match entry.kind {
            Type::File => return self.add_file(archive, entry, folder, name),
            Type::HardLink => return self.add_link(folder, name, &entry.link),
            Type::Folder => Body::Folder,
            Type::Symlink => Body::Symlink(&entry.link),
            Type::CharDevice => Body::CharDevice(device),
            Type::BlockDevice => Body::BlockDevice(device),
            Type::Fifo => Body::Fifo,
        };
        self.tree.put(folder, name, &attributes, body)?;
        Ok(())
    }

    fn take_away(&mut self, folder: Node, name: &[u8], gone: &[u8], kind: Type) -> Result<(), Cause> {
        if gone.is_empty() || kind == Type::Folder {
            return Err(Cause::BadWhiteout);
        }
        if name == OPAQUE {
            self.tree.opaque(folder);
        } else if !name.starts_with(AUFS) {
            self.tree.whiteout(folder, gone)?;
        }
        Ok(())
    }

    fn add_file<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        entry: &Entry,
        folder: Node,
        name: &[u8],
    ) -> Result<(), Cause> {
        let attributes = attributes(entry);
        let mut small = [0; INLINE_MAX];
        let room = usize::try_from(entry.size).ok().and_then(|size| small.get_mut(..size));
        match room {
            Some(bytes) if entry.pieces.is_none() && self.inline + entry.size <= INLINE_SUM_MAX => {
                if archive.read(bytes)? != bytes.len() {
                    return Err(TarError::Truncated.into());
                }
                self.inline += entry.size;
                self.tree.put(folder, name, &attributes, Body::Inline(bytes))?;
            }
            _ => {
                let extents = self.data.take(archive, entry)?;
                let body = Body::File { size: entry.size, extents: &extents };
                self.tree.put(folder, name, &attributes, body)?;
            }
        }
        Ok(())
    }

    fn add_link(&mut self, folder: Node, name: &[u8], target: &[u8]) -> Result<(), Cause> {
        let out = || Cause::HardLinkOut(target.to_vec());
        let relative = target.strip_prefix(b"/").unwrap_or(target);
        let path = components(relative).map_err(|_| out())?;
        let Some((&last, way)) = path.split_last() else {
            return Err(out());
        };
        match self.find_folder(way)? {
            Way::Folder(place) => match self.tree.find(place, last) {
                Found::Folder(_) => Err(BuildError::LinkToFolder.into()),
                Found::Symlink(node, _) | Found::Other(node) => Ok(self.tree.link(folder, name, node)?),
                Found::Nothing => Ok(self.tree.link_later(folder, name, &path.join(&b'/'))?),
            },
            Way::Unknown => Ok(self.tree.link_later(folder, name, &path.join(&b'/'))?),
        }
    }

    /// The folder at the end of a way, made where this layer knows nothing.
    fn enter(&mut self, way: &[&[u8]]) -> Result<Node, Cause> {
        match self.walk(way, true)? {
            Way::Folder(node) => Ok(node),
            Way::Unknown => Err(BuildError::NotAFolder.into()),
        }
    }

    fn find_folder(&mut self, way: &[&[u8]]) -> Result<Way, Cause> {
        self.walk(way, false)
    }

    fn walk(&mut self, way: &[&[u8]], make: bool) -> Result<Way, Cause> {
        // From the root to here, so that a link's `..` has somewhere to go.
        let mut here = vec![Tree::ROOT];
        let mut todo: Vec<Vec<u8>> = Vec::new();
        let mut straight = way.iter();
        let mut followed = 0;
        loop {
            let queued = todo.pop();
            let Some(name) = queued.as_deref().or_else(|| straight.next().copied()) else {
                break;
            };
            let folder = *here.last().unwrap_or(&Tree::ROOT);
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(Cause::TooManySteps);
            }
            let (link, target) = match self.tree.find(folder, name) {
                _ if name == b".." && here.len() > 1 => {
                    here.pop();
                    continue;
                }
                Found::Folder(node) => {
                    here.push(node);
                    continue;
                }
                Found::Nothing if make => {
                    let node = self.tree.enter(folder, name)?;
                    here.push(node);
                    continue;
                }
                Found::Nothing => return Ok(Way::Unknown),
                Found::Other(_) => return Err(BuildError::NotAFolder.into()),
                Found::Symlink(_, target) => (name.to_vec(), target.to_vec()),
            };
            followed += 1;
            let names: Vec<_> =
                target.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".").collect();
            if followed > LINKS_MAX {
                return Err(Cause::LinkLoop);
            }
            if target.starts_with(b"/") || climbs_out(&names, here.len() - 1) {
                return Err(Cause::LinkOut { link, target });
            }
            todo.extend(names.into_iter().rev().map(<[u8]>::to_vec));
        }
        Ok(Way::Folder(*here.last().unwrap_or(&Tree::ROOT)))
    }
}

enum Way {
    Folder(Node),
    Unknown,
}

/// Whether a relative way that begins so many folders below the root leaves it.
fn climbs_out(names: &[&[u8]], depth: usize) -> bool {
    let mut depth = depth;
    for name in names {
        match (*name, depth) {
            (b"..", 0) => return true,
            (b"..", _) => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// The names of an entry's path, which may be none.
fn components(name: &[u8]) -> Result<Vec<&[u8]>, Cause> {
    if name.len() > PATH_MAX {
        return Err(Cause::NameTooLong(name.len()));
    }
    let names: Vec<_> = name.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".").collect();
    if names.contains(&&b".."[..]) {
        return Err(Cause::DotDot);
    }
    if name.starts_with(b"/") && !names.is_empty() {
        return Err(Cause::AbsoluteName);
    }
    if name.is_empty() {
        return Err(BuildError::BadName.into());
    }
    Ok(names)
}

fn attributes(entry: &Entry) -> Attributes {
    let kept = |name: &[u8]| {
        name != b"security.selinux" && name != b"system.nfs4_acl" && !name.starts_with(b"trusted.overlay.")
    };
    Attributes {
        // A link's own mode is nobody's business; Linux has all of them alike.
        mode: if entry.kind == Type::Symlink { 0o777 } else { entry.mode },
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs.iter().filter(|(n, _)| kept(n)).map(|(n, v)| (n.clone(), v.clone())).collect(),
    }
}

#[cfg(test)]
mod tests;
