// SPDX-License-Identifier: Apache-2.0
//! What the host can tell the agent of the image from its index, so that the guest does not have to look: each look of its
//! is a request, and thousands of its kernel's instructions.
//!
//! Paths are followed as far as they are plain folders. Where a link comes into it, or a mount, nothing is said, and the
//! guest finds out by itself.

use isopod_index::format::Kind;
use isopod_index::{Index, Ino, Inode};
use isopod_protocol::message::{Container, Folder, ImageFolders};
use isopod_sys::map::FileMap;
use std::fs::File;

/// What the agent mounts in every container.
const MOUNTS: [&[u8]; 3] = [b"dev", b"proc", b"sys"];
/// Of a root in which nothing was described.
const PLAIN: Folder = Folder { mode: 0o755, uid: 0, gid: 0, modified_s: 0, modified_ns: 0 };

/// Fills in what can be said. An index that cannot be read is for the machine to complain about.
pub(crate) fn describe(container: &mut Container, index: &File) {
    let Ok(map) = FileMap::new(index) else { return };
    let Ok(index) = Index::open(map) else { return };
    container.image = folders(&index, container);
    container.folders_without = folders_without(&index, container);
}

fn folders<B: AsRef<[u8]>>(index: &Index<B>, container: &Container) -> Option<ImageFolders> {
    let root = folder(&index.inode(Ino::ROOT)?);
    let Some(etc) = index.lookup(Ino::ROOT, b"etc").and_then(|etc| index.inode(etc)) else {
        return Some(ImageFolders { root, etc: PLAIN });
    };
    let is_plain = etc.kind == Kind::Folder && index.xattrs(etc.ino).next().is_none();
    let can_be_hidden = |path: &str| {
        let name = path.strip_prefix("/etc/").unwrap_or_default().as_bytes();
        let hidden = index.lookup(etc.ino, name).and_then(|hidden| index.inode(hidden));
        hidden.is_none_or(|hidden| hidden.kind == Kind::File)
    };
    let plain = is_plain && container.files.iter().all(|file| can_be_hidden(&file.path));
    plain.then(|| ImageFolders { root, etc: folder(&etc) })
}

fn folder(inode: &Inode) -> Folder {
    Folder {
        mode: inode.mode.into(),
        uid: inode.uid,
        gid: inode.gid,
        modified_s: inode.mtime.seconds,
        modified_ns: inode.mtime.nanoseconds,
    }
}

/// How many of PATH's folders, from its front, the program is certainly not in.
fn folders_without<B: AsRef<[u8]>>(index: &Index<B>, container: &Container) -> u32 {
    let path = container.env.iter().find_map(|line| line.strip_prefix(b"PATH="));
    let (Some(path), Some(program)) = (path, container.args.first()) else { return 0 };
    // Something may be mounted anywhere.
    if program.contains(&b'/') || !container.tmpfs.is_empty() {
        return 0;
    }
    let lacks = |folder: &&[u8]| lacks(index, folder, program) == Some(true);
    let lacking = path.split(|b| *b == b':').take_while(lacks).count();
    u32::try_from(lacking).unwrap_or(0)
}

/// Whether a folder lacks a name; `None` if that cannot be told.
fn lacks<B: AsRef<[u8]>>(index: &Index<B>, folder: &[u8], name: &[u8]) -> Option<bool> {
    let path = folder.strip_prefix(b"/")?;
    let mut at = Ino::ROOT;
    for (depth, part) in path.split(|b| *b == b'/').enumerate() {
        if matches!(part, b"" | b"." | b"..") || depth == 0 && MOUNTS.contains(&part) {
            return None;
        }
        let Some(next) = index.lookup(at, part) else { return Some(true) };
        if index.inode(next)?.kind != Kind::Folder {
            return None;
        }
        at = next;
    }
    Some(index.lookup(at, name).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_index::format::Use;
    use isopod_index::{Attributes, Body, Tree};
    use isopod_protocol::message::EtcFile;

    /// A folder for each name that ends in a slash, a link for each that ends in `@`, else an empty file.
    fn index(names: &[&str]) -> Index<Vec<u8>> {
        let mut tree = Tree::new(Use::Image, 1 << 20);
        let attributes = Attributes { mode: 0o750, uid: 3, ..Attributes::default() };
        for name in names {
            let mut parts: Vec<&str> = name.trim_end_matches(['/', '@']).split('/').collect();
            let last = parts.pop().unwrap();
            let folder = parts.iter().fold(Tree::ROOT, |at, part| tree.enter(at, part.as_bytes()).unwrap());
            let body = match name.as_bytes().last() {
                Some(b'/') => Body::Folder,
                Some(b'@') => Body::Symlink(b"elsewhere"),
                _ => Body::Inline(b""),
            };
            tree.put(folder, last.as_bytes(), &attributes, body).unwrap();
        }
        let mut bytes = Vec::new();
        tree.write(&mut bytes).unwrap();
        Index::open(bytes).unwrap()
    }

    fn container(path: &str) -> Container {
        let files = vec![EtcFile { path: "/etc/hosts".into(), content: Vec::new() }];
        let env = vec![format!("PATH={path}").into_bytes()];
        Container { files, env, args: vec![b"sh".to_vec()], ..Container::default() }
    }

    #[test]
    fn folders_that_lack_the_program_are_counted_up_to_the_one_that_has_it() {
        let index = index(&["usr/sbin/", "usr/bin/sh"]);
        assert_eq!(folders_without(&index, &container("/opt/bin:/usr/sbin:/usr/bin:/bin")), 2);
    }

    #[test]
    fn nothing_is_said_beyond_a_link_a_mount_or_a_path_that_is_not_plain() {
        let index = index(&["usr/bin/sh", "bin@", "home/"]);
        for path in ["/bin:/home", "/dev:/home", "/usr/../home", "home", ""] {
            assert_eq!(folders_without(&index, &container(path)), 0, "{path}");
        }
        let with_slash = Container { args: vec![b"./sh".to_vec()], ..container("/home") };
        assert_eq!(folders_without(&index, &with_slash), 0);
    }

    #[test]
    fn an_etc_that_files_can_lie_over_is_described() {
        let described = folders(&index(&["etc/", "etc/hosts"]), &container("")).unwrap();
        assert_eq!((described.etc.mode, described.etc.uid), (0o750, 3));
        assert_eq!(folders(&index(&["bin/"]), &container("")).unwrap().etc, PLAIN);
    }

    #[test]
    fn links_and_folders_in_the_way_are_the_guests_to_deal_with() {
        for names in [["etc@", "bin/"], ["etc/hosts@", "bin/"], ["etc/hosts/", "bin/"]] {
            assert_eq!(folders(&index(&names), &container("")), None, "{names:?}");
        }
    }
}
