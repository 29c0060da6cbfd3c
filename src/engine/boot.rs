// SPDX-License-Identifier: Apache-2.0
//! The guest's root file system: the agent, embedded in this program, and empty folders to mount things on.
//!
//! It is written under the data root once for each agent, so that all machines share one page-cached copy of it.

use crate::error::{EngineError, Kind, Result};
use isopod_index::build::{Attributes, Body, BuildError, Tree};
use isopod_index::format::Use;
use isopod_index::read::Extent;
use isopod_jail::View;
use isopod_vmm::client::ShareFiles;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process;
use std::result::Result as StdResult;

/// The guest agent, a static x86_64 program.
pub(crate) const AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest-agent"));
/// The first half of its SHA-256.
pub(crate) const AGENT_HASH: &str = env!("ISOPOD_AGENT_HASH");

const MOUNT_POINTS: &[&[u8]] = &[b"dev", b"image", b"proc", b"run", b"rw", b"sys"];
/// As in the store of images.
const DISKS: &str = "disks";
/// Far more than these few entries take.
const LIMIT: usize = 1024 * 1024;

/// The share's files, made if they are not there yet, and what they were opened in.
pub(crate) fn share(data_root: &Path) -> Result<(ShareFiles, View)> {
    if AGENT.is_empty() {
        let what = "this build has no guest agent";
        return Err(
            EngineError::new(Kind::Unsupported, what).hint("build isopod again, without ISOPOD_AGENT")
        );
    }
    let folder = data_root.join("boot");
    if let Some(opened) = open(&folder) {
        return Ok(opened);
    }
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder.join(DISKS))?;
        put(&folder.join(data()), AGENT)?;
        let mut table = Vec::new();
        write_index(AGENT.len(), &mut table).map_err(io::Error::other)?;
        put(&folder.join(index()), &table)
    };
    write().map_err(EngineError::io(format!("cannot write the boot share to {}", folder.display())))?;
    open(&folder).ok_or_else(|| EngineError::new(Kind::Io, format!("{} vanished", folder.display())))
}

fn data() -> String {
    format!("{DISKS}/{AGENT_HASH}.data")
}

fn index() -> String {
    format!("{DISKS}/{AGENT_HASH}.index")
}

/// Both, if they are there: each was put there whole.
fn open(folder: &Path) -> Option<(ShareFiles, View)> {
    let view = View::of(folder).ok()?;
    let (index, layers) = (view.open(&index()).ok()?, vec![view.open(&data()).ok()?]);
    Some((ShareFiles { index, layers }, view))
}

/// Whole or not at all, whoever else does the same at the same time.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension(format!("new.{}", process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

fn write_index(agent: usize, out: &mut impl Write) -> StdResult<(), BuildError> {
    let mut tree = Tree::new(Use::Image, LIMIT);
    let folder = Attributes { mode: 0o755, ..Attributes::default() };
    tree.describe_root(&folder)?;
    for name in MOUNT_POINTS {
        tree.put(Tree::ROOT, name, &folder, Body::Folder)?;
    }
    let size = agent as u64;
    let extents = [Extent { file_offset: 0, len: size, layer: 0, data_offset: 0 }];
    let program = Attributes { mode: 0o555, ..Attributes::default() };
    tree.put(Tree::ROOT, b"agent", &program, Body::File { size, extents: &extents })?;
    tree.write(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_index::{Content, Index, Ino};

    #[test]
    fn the_root_has_the_agent_and_the_mount_points() {
        let mut bytes = Vec::new();
        write_index(5000, &mut bytes).unwrap();
        let index = Index::open(bytes).unwrap();
        let names: Vec<Vec<u8>> = index.entries(Ino::ROOT).map(|e| e.name.to_vec()).collect();
        assert_eq!(names, [&b"agent"[..], b"dev", b"image", b"proc", b"run", b"rw", b"sys"]);
        let agent = index.inode(index.lookup(Ino::ROOT, b"agent").unwrap()).unwrap();
        assert_eq!((agent.size, agent.mode), (5000, 0o555));
        assert!(matches!(index.content(agent.ino), Some(Content::Extents(_))));
    }
}
