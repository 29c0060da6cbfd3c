// SPDX-License-Identifier: Apache-2.0
//! Bugs that other servers of shared files had, tried on this one. The letters are the rows of `docs/attacks.md`.

use super::*;
use crate::filesystem::{Attributes, FileSystem, Seek, Totals};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files nobody may ask for: whoever gets here is past the door, and would make a system call next.
#[derive(Debug)]
struct Untouchable;

impl FileSystem for Untouchable {
    fn attributes(&self, node: u64) -> Result<Attributes, Errno> {
        panic!("attributes of {node}")
    }

    fn lookup(&self, _folder: u64, name: &[u8]) -> Result<Option<Attributes>, Errno> {
        panic!("look-up of {name:?}")
    }

    fn entry(&self, folder: u64, _position: u64) -> Result<Option<DirEntry<'_>>, Errno> {
        panic!("listing of {folder}")
    }

    fn link_target(&self, node: u64) -> Result<&[u8], Errno> {
        panic!("target of {node}")
    }

    fn read(&self, node: u64, _offset: u64, _len: usize, _body: &mut Body<'_>) -> Result<usize, Errno> {
        panic!("contents of {node}")
    }

    fn seek(&self, node: u64, _offset: u64, _to: Seek) -> Result<u64, Errno> {
        panic!("holes of {node}")
    }

    /// An attribute's name may have any bytes but NUL; it is compared with those of the table and nothing else.
    fn xattr(&self, _node: u64, name: &[u8]) -> Result<&[u8], Errno> {
        assert!(!name.is_empty() && name.len() <= NAME_MAX && !name.contains(&0), "{name:?}");
        Err(Errno::NODATA)
    }

    fn xattr_names(&self, node: u64, _each: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
        panic!("attributes' names of {node}")
    }

    fn totals(&self) -> Totals {
        panic!("totals")
    }
}

fn initialised(files: impl FileSystem + 'static) -> Server {
    let mut server = Server::new(files);
    send(&mut server, opcode::INIT, 0, &init_body(INIT_IN)).body();
    server
}

/// Every request with a name in it: bytes before the first name, and how many names there are.
const NAMED: [(u32, usize, usize); 20] = [
    (opcode::LOOKUP, 0, 1),
    (opcode::SYMLINK, 0, 2),
    (opcode::MKNOD, 16, 1),
    (opcode::MKDIR, 8, 1),
    (opcode::UNLINK, 0, 1),
    (opcode::RMDIR, 0, 1),
    (opcode::RENAME, 8, 2),
    (opcode::RENAME2, 16, 2),
    (opcode::LINK, 8, 1),
    (opcode::CREATE, 16, 1),
    (opcode::TMPFILE, 16, 1),
    (opcode::SETXATTR, 8, 2),
    (opcode::GETXATTR, 8, 1),
    (opcode::REMOVEXATTR, 0, 1),
    // Those that have none, with one all the same.
    (opcode::SETATTR, 88, 1),
    (opcode::WRITE, 40, 1),
    (opcode::FALLOCATE, 32, 1),
    (opcode::COPY_FILE_RANGE, 56, 1),
    (SETUPMAPPING, 0, 1),
    (STATX, 0, 1),
];

const SETUPMAPPING: u32 = 48;
const REMOVEMAPPING: u32 = 49;
const STATX: u32 = 52;

/// 30 names that are no name, or one that leads elsewhere.
fn traps() -> Vec<Vec<u8>> {
    let more: [&[u8]; 6] =
        [b"..\\x/\0", b"/proc/self/root\0", b"/dev/vda\0", b"a/../../b\0", b"\xc0\xaf/\0", b"/\0x\0"];
    let all: Vec<_> = names().into_iter().chain(more.map(<[u8]>::to_vec)).collect();
    assert_eq!(all.len(), 30);
    all
}

/// B1 (libkrun issue 329), B2 (CVE-2026-47243), B4: a name that is a path leaves the root.
#[test]
fn no_name_of_any_request_leads_out_of_the_share() {
    let mut server = initialised(Untouchable);
    let mut refused = 0;
    for (code, before, names) in NAMED {
        for trap in traps() {
            for good in [&b"good\0"[..], b""] {
                let bodies = [[good, &trap].concat(), [&trap[..], good].concat(), trap.clone()];
                for tail in bodies.iter().take(if names == 2 { 3 } else { 0 }).chain([&trap]) {
                    let answer = send(&mut server, code, 1, &[&vec![0; before][..], tail].concat());
                    assert!(matches!(answer, Answer::Error(_)), "opcode {code}: {answer:?} to {tail:?}");
                }
            }
            refused += 1;
        }
    }
    assert_eq!(refused, 600);
}

/// What a tree of files is on the host: names, lengths, times of all kinds, contents.
fn host_tree(root: &Path) -> BTreeSet<(String, u64, [i64; 4], Vec<u8>)> {
    let entry = |entry: fs::DirEntry| {
        let about = entry.metadata().unwrap();
        let times = [about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()];
        let name = entry.file_name().into_string().unwrap();
        (name, about.len(), times, fs::read(entry.path()).unwrap())
    };
    fs::read_dir(root).unwrap().map(|found| entry(found.unwrap())).collect()
}

/// B9 (CVE-2026-46695), B10, A19: a read-only share is written to by who remounts it.
#[test]
fn every_request_that_would_change_a_read_only_share_leaves_it_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    // Even where the server's descriptors could write: that they cannot is looked at in a machine.
    let layers: Vec<File> = [("a", 20_000), ("b", 10_000)]
        .map(|(name, len)| {
            let path = folder.path().join(name);
            fs::write(&path, vec![name.as_bytes()[0]; len]).unwrap();
            OpenOptions::new().read(true).write(true).open(path).unwrap()
        })
        .into();
    let index = Index::open(image()).unwrap();
    let mut server = initialised(IndexServer::new(index, layers));
    let list = |server: &mut Server| send(server, opcode::READDIRPLUS, 1, &read_body(0, 8000)).body();
    let (before, seen) = (host_tree(folder.path()), list(&mut server));
    let fields = [0u64, 1, 2, 4096, u64::MAX].map(|value| [value; 11]);
    for code in CHANGING.into_iter().chain([opcode::FLUSH, SETUPMAPPING, REMOVEMAPPING]) {
        for node in 1..8 {
            for words in fields {
                let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                for fixed in [0, 8, 16, 32, 40, 56, 88] {
                    let body = [&words[..fixed], b"hello\0link\0"].concat();
                    let answer = send(&mut server, code, node, &body);
                    let expected = if CHANGING.contains(&code) { Errno::ROFS } else { Errno::NOSYS };
                    assert_eq!(answer, Answer::Error(expected), "opcode {code} node {node}");
                }
            }
        }
    }
    assert_eq!(host_tree(folder.path()), before);
    assert_eq!(list(&mut server), seen);
}

/// B13: a server follows a link that is in the tree it serves.
#[test]
fn a_link_is_never_followed_wherever_it_leads() {
    let long = [b'l'; 4095];
    let targets: [&[u8]; 40] = [
        b"/",
        b"//",
        b".",
        b"..",
        b"../..",
        b"../../../../../../../..",
        b"/etc/passwd",
        b"/etc",
        b"/proc/self/root",
        b"/proc/self/fd/0",
        b"/proc/1/root",
        b"/proc/self/cwd",
        b"/dev/null",
        b"/dev/vda",
        b"/dev/kvm",
        b"/sys",
        b"/root/.ssh/id_rsa",
        b"/var/run/docker.sock",
        b"../etc/passwd",
        b"./../etc/passwd",
        b"a/../../etc/passwd",
        b"/./etc",
        b"/..",
        b"/../..",
        b"~",
        b"~root",
        b"self",
        b"0",
        b"./0",
        b"/0/..",
        b"1",
        b"dir",
        b"dir/f",
        b"dir/..",
        b"dir/../..",
        b"\xff\xfe",
        b" ",
        b"a\nb",
        b"http://host/",
        &long,
    ];
    let mut tree = Tree::new(Use::Image, 1 << 20);
    tree.describe_root(&made(0o755)).unwrap();
    let dir = tree.put(Tree::ROOT, b"dir", &made(0o755), Contents::Folder).unwrap();
    tree.put(dir, b"f", &made(0o644), Contents::Inline(b"inside")).unwrap();
    for (n, target) in targets.iter().enumerate() {
        let name = n.to_string();
        tree.put(Tree::ROOT, name.as_bytes(), &made(0o777), Contents::Symlink(target)).unwrap();
    }
    let mut bytes = Vec::new();
    tree.write(&mut bytes).unwrap();
    let mut server = initialised(IndexServer::new(Index::open(bytes).unwrap(), Vec::new()));
    for (n, target) in targets.iter().enumerate() {
        let found = lookup(&mut server, 1, &n.to_string()).body();
        assert_eq!(halves(&found[88..])[3], 0o120_777, "a link, {target:?}");
        let link = Take(&found).u64().unwrap();
        assert_eq!(send(&mut server, opcode::READLINK, link, &[]).body(), *target);
        assert_eq!(read(&mut server, link, 0, 4096), Answer::Error(Errno::INVAL));
        for name in ["f", "etc", "passwd", "dir"] {
            assert_eq!(lookup(&mut server, link, name), Answer::Error(Errno::NOTDIR));
        }
        for code in [opcode::READDIR, opcode::READDIRPLUS] {
            assert_eq!(send(&mut server, code, link, &read_body(0, 4096)), Answer::Error(Errno::NOTDIR));
        }
    }
}

/// B14: handles that were never given, or for another file: they are not looked at, the node is.
#[test]
fn a_handle_of_another_file_opens_nothing() {
    let mut server = ready();
    let (hello, empty) = (node(&mut server, 1, "hello"), node(&mut server, 1, "empty"));
    for handle in [0, 1, empty, hello, 1 << 32, u64::MAX] {
        let body = Put::<40>::new().u64(handle).u64(0).u32(100).pad(40);
        assert_eq!(send(&mut server, opcode::READ, hello, body.as_bytes()).body(), b"hello, guest");
        assert_eq!(send(&mut server, opcode::READ, empty, body.as_bytes()).body(), b"");
        assert_eq!(send(&mut server, opcode::READDIR, hello, body.as_bytes()), Answer::Error(Errno::NOTDIR));
        assert_eq!(send(&mut server, opcode::RELEASE, hello, body.as_bytes()).body(), b"");
    }
}

/// B14: a node that was given up, more often than it was got, is used again.
#[test]
fn what_was_forgotten_is_neither_gone_nor_another_file() {
    let mut server = ready();
    let hello = node(&mut server, 1, "hello");
    for count in [0, 1, 2, u64::MAX] {
        for of in [0, 1, hello, 1 << 40, u64::MAX] {
            assert_eq!(send(&mut server, opcode::FORGET, of, &count.to_le_bytes()), Answer::Silence);
            // Of `u32::MAX` nodes, of which one is there.
            let batch = Put::<24>::new().u32(u32::MAX).u32(0).u64(of).u64(count);
            assert_eq!(send(&mut server, opcode::BATCH_FORGET, 0, batch.as_bytes()), Answer::Silence);
        }
    }
    assert_eq!(read(&mut server, hello, 0, 100).body(), b"hello, guest");
    assert_eq!(node(&mut server, 1, "hello"), hello);
}

/// B15 (CVE-2017-7493): what a server keeps beside its files is a name like others.
#[test]
fn nothing_the_server_keeps_can_be_reached_by_a_name() {
    let mut server = ready();
    let bin = node(&mut server, 1, "bin");
    for folder in [1, bin] {
        for name in [
            ".virtfs_metadata",
            ".virtfs_metadata_root",
            ".wh.hello",
            ".wh..wh..opq",
            ".wh..wh..plnk",
            "index",
            "data",
            "layers",
            "user.overlay.opaque",
            ".fuse_hidden0",
            "lost+found",
            "0",
        ] {
            let body = lookup(&mut server, folder, name).body();
            assert_eq!(Take(&body).u64(), Some(0), "{name}");
        }
    }
    for name in
        [&b"trusted.overlay.opaque"[..], b"user.overlay.whiteout", b"user.virtfs.uid", b"security.capability"]
    {
        assert_eq!(get_xattr(&mut server, bin, name, 100), Answer::Error(Errno::NODATA));
    }
}

/// B16: a node of one share, used in another.
#[test]
fn a_node_of_another_share_is_none_here() {
    let mut large = ready();
    let link = node(&mut large, 1, "link");
    let mut bytes = Vec::new();
    let mut tree = Tree::new(Use::Image, 1 << 20);
    tree.describe_root(&made(0o700)).unwrap();
    tree.write(&mut bytes).unwrap();
    let mut small = initialised(IndexServer::new(Index::open(bytes).unwrap(), Vec::new()));
    for foreign in 2..=link.max(8) {
        assert_eq!(send(&mut small, opcode::GETATTR, foreign, &[0; 16]), Answer::Error(Errno::STALE));
        let new_place = [&foreign.to_le_bytes()[..], b"x\0y\0"].concat();
        for code in [opcode::LINK, opcode::RENAME] {
            assert_eq!(send(&mut small, code, 1, &new_place), Answer::Error(Errno::ROFS));
        }
    }
}

/// B8 (CVE-2020-10717): a guest opens files until the host has no descriptors left, or no memory.
#[test]
fn opening_a_million_times_holds_nothing() {
    let mut server = fresh();
    send(&mut server, opcode::INIT, 0, &init_body([7, 31, 0, 0])).body();
    let hello = node(&mut server, 1, "hello");
    let mut handles = BTreeSet::new();
    for _ in 0..1_000_000 {
        handles.insert(send_small(&mut server, &message(opcode::OPEN, hello, &[0; 8])));
    }
    assert_eq!(handles, BTreeSet::from([0]), "a handle is nothing that is kept");
}

/// Without the checks of `send`, which would take most of the time; gives the first word of the body.
fn send_small(server: &mut Server, request: &[u8]) -> u64 {
    let mut page = Page(vec![0; 64]);
    assert_eq!(server.handle(request, &mut page), OUT_HEADER_LEN + 16);
    Take(&page.0[OUT_HEADER_LEN..]).u64().unwrap()
}
