// SPDX-License-Identifier: Apache-2.0
//! The index: a table that was built reads back consistently, layers merge into one that does, and a table in which
//! anything was changed, or that is no table at all, is read without a panic and in bounded time.

use arbitrary::{Arbitrary, Unstructured};
use isopod_index::build::{Attributes, Body, Found, Node, Tree};
use isopod_index::format::{Kind, Use};
use isopod_index::{Content, Device, Extent, Index, Ino, Time, merge};

/// Most entries, pieces and inodes that are looked at: a false table may claim each folder to hold all there are.
const LOOKS: usize = 64;
const MEMORY: usize = 1 << 20;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Layers { layers: Vec<Vec<Entry<'a>>>, damage: Vec<Damage> },
    Image { entries: Vec<Entry<'a>>, damage: Vec<Damage> },
    Bytes(&'a [u8]),
}

/// Changes one byte of a table.
#[derive(Debug, Arbitrary)]
struct Damage {
    at: u16,
    xor: u8,
}

#[derive(Debug, Arbitrary)]
struct Entry<'a> {
    folder: u8,
    name: Name<'a>,
    what: What<'a>,
    mode: u16,
    owner: (u32, u32),
    time: (i64, u32),
    xattr: Option<(&'a [u8], &'a [u8])>,
}

#[derive(Debug, Arbitrary)]
enum Name<'a> {
    /// One of few, so that names meet.
    Common(u8),
    Any(&'a [u8]),
    Long,
}

#[derive(Debug, Arbitrary)]
enum What<'a> {
    Folder,
    Inline(&'a [u8]),
    File {
        size: u32,
        pieces: Vec<(u16, u16, u32)>,
    },
    Symlink(&'a [u8]),
    SymlinkTo(u8),
    Device(bool, u16, u32),
    Fifo,
    /// A hard link to something put before.
    Link(u8),
    LinkLater(Vec<u8>),
    Whiteout,
    Opaque,
    Enter,
}

impl What<'_> {
    /// Whether it says something about lower layers, which an image has not got.
    fn is_a_layers(&self) -> bool {
        matches!(self, Self::LinkLater(_) | Self::Whiteout | Self::Opaque)
    }
}

pub(crate) fn tables(bytes: &[u8]) {
    match Unstructured::new(bytes).arbitrary() {
        Ok(Input::Layers { layers, damage }) => merged(&layers, &damage),
        Ok(Input::Image { entries, damage }) => {
            if let Some(table) = build(Use::Image, &entries) {
                damaged(table, &damage);
            }
        }
        Ok(Input::Bytes(bytes)) => read(bytes),
        Err(_) => {}
    }
}

/// A table of at most a few entries for other targets to serve.
pub(crate) fn sample(bytes: &[u8]) -> Option<Vec<u8>> {
    let entries: Vec<Entry<'_>> = Unstructured::new(bytes).arbitrary().ok()?;
    build(Use::Image, &entries)
}

/// The table of a few files of each sort that has contents.
pub(crate) fn small() -> Vec<u8> {
    let mut tree = Tree::new(Use::Image, MEMORY);
    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
    let extents = [Extent { file_offset: 4096, len: 8192, layer: 0, data_offset: 4096 }];
    let entries: [(&[u8], Body<'_>); 4] = [
        (b"etc", Body::Folder),
        (b"hello", Body::Inline(b"hello, world\n")),
        (b"link", Body::Symlink(b"etc/passwd")),
        (b"large", Body::File { size: 20_000, extents: &extents }),
    ];
    for (name, body) in entries {
        tree.put(Tree::ROOT, name, &attributes, body).expect("a good entry");
    }
    let mut table = Vec::new();
    tree.write(&mut table).expect("a good tree");
    table
}

fn merged(layers: &[Vec<Entry<'_>>], damage: &[Damage]) {
    let tables: Vec<_> = layers.iter().take(5).filter_map(|layer| build(Use::Layer, layer)).collect();
    let open = |table: &Vec<u8>| Index::open(table.clone()).expect("what was built opens");
    let mut image = Vec::new();
    if merge(&tables.iter().map(open).collect::<Vec<_>>(), &mut image).is_ok() {
        whole(&image);
        damaged(image, damage);
    }
    // Layers are built here, but merged from files: a false one must not do harm either.
    let tables: Vec<_> = tables.into_iter().map(|table| spoil(table, damage)).collect();
    let opened: Vec<_> = tables.into_iter().filter_map(|table| Index::open(table).ok()).collect();
    let verified: Vec<_> = opened.into_iter().filter(|layer| layer.verify().is_ok()).collect();
    let mut image = Vec::new();
    if merge(&verified, &mut image).is_ok() {
        whole(&image);
    }
}

fn damaged(table: Vec<u8>, damage: &[Damage]) {
    whole(&table);
    if !damage.is_empty() {
        read(&spoil(table, damage));
    }
}

fn spoil(mut table: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for Damage { at, xor } in damage {
        let at = usize::from(*at) % table.len().max(1);
        if let Some(byte) = table.get_mut(at) {
            *byte ^= xor;
        }
    }
    table
}

/// What a builder wrote must be beyond reproach.
fn whole(table: &[u8]) {
    let index = Index::open(table).expect("what was built opens");
    index.verify().expect("what was built is consistent");
    read(table);
}

fn build(used: Use, entries: &[Entry<'_>]) -> Option<Vec<u8>> {
    let mut tree = Tree::new(used, MEMORY);
    let mut folders = vec![Tree::ROOT];
    let mut others = Vec::new();
    for entry in entries.iter().filter(|entry| used == Use::Layer || !entry.what.is_a_layers()) {
        // What the builder refuses is refused alone, the rest is still a tree.
        if let Some(node) = put(&mut tree, entry, &folders, &others) {
            match entry.what {
                What::Folder | What::Enter => folders.push(node),
                _ => others.push(node),
            }
        }
    }
    let mut table = Vec::new();
    tree.write(&mut table).ok().map(|()| table)
}

fn put(tree: &mut Tree, entry: &Entry<'_>, folders: &[Node], others: &[Node]) -> Option<Node> {
    let folder = folders[usize::from(entry.folder) % folders.len()];
    let (name, attributes) = (name(&entry.name), attributes(entry));
    let body = match &entry.what {
        What::Folder => Body::Folder,
        What::Inline(bytes) => Body::Inline(bytes),
        What::File { size, pieces } => return put_file(tree, (folder, &name, &attributes), *size, pieces),
        What::Symlink(target) => Body::Symlink(target),
        What::SymlinkTo(n) => {
            return tree.put(folder, &name, &attributes, Body::Symlink(&common(*n))).ok();
        }
        What::Device(true, major, minor) => Body::CharDevice(device(*major, *minor)),
        What::Device(false, major, minor) => Body::BlockDevice(device(*major, *minor)),
        What::Fifo => Body::Fifo,
        What::Link(n) => {
            let node = *others.get(usize::from(*n) % others.len().max(1))?;
            return tree.link(folder, &name, node).ok().map(|()| node);
        }
        What::LinkLater(path) => {
            let path: Vec<u8> = path.iter().flat_map(|n| [vec![b'/'], common(*n)].concat()).collect();
            drop(tree.link_later(folder, &name, &path));
            return None;
        }
        What::Whiteout => {
            drop(tree.whiteout(folder, &name));
            return None;
        }
        What::Opaque => {
            tree.opaque(folder);
            return None;
        }
        What::Enter => return tree.enter(folder, &name).ok(),
    };
    let node = tree.put(folder, &name, &attributes, body).ok()?;
    assert!(tree.find(folder, &name) != Found::Nothing, "what was put is not there");
    Some(node)
}

fn put_file(
    tree: &mut Tree,
    (folder, name, attributes): (Node, &[u8], &Attributes),
    size: u32,
    pieces: &[(u16, u16, u32)],
) -> Option<Node> {
    let mut extents = Vec::new();
    let mut end = 0;
    for (gap, len, place) in pieces {
        let file_offset = end + u64::from(*gap);
        let len = u64::from(*len);
        extents.push(Extent { file_offset, len, layer: 0, data_offset: u64::from(*place) });
        end = file_offset + len;
    }
    let body = Body::File { size: end + u64::from(size), extents: &extents };
    tree.put(folder, name, attributes, body).ok()
}

fn device(major: u16, minor: u32) -> Device {
    Device { major: u32::from(major), minor }
}

fn name(name: &Name<'_>) -> Vec<u8> {
    match name {
        Name::Common(n) => common(*n),
        Name::Any(bytes) => bytes.to_vec(),
        Name::Long => vec![b'n'; 255],
    }
}

/// A few names that meet, and a few that are none.
fn common(n: u8) -> Vec<u8> {
    const NAMES: [&[u8]; 16] = [
        b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"bin", b"etc", b"usr", b"lib", b"x", b"..", b".", b"",
        b"a/b",
    ];
    NAMES[usize::from(n) % NAMES.len()].to_vec()
}

fn attributes(entry: &Entry<'_>) -> Attributes {
    Attributes {
        mode: entry.mode & 0o7777,
        uid: entry.owner.0,
        gid: entry.owner.1,
        mtime: Time { seconds: entry.time.0, nanoseconds: entry.time.1 % 1_000_000_000 },
        xattrs: entry.xattr.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    }
}

/// Looks at everything a server would.
fn read(table: &[u8]) {
    let Ok(index) = Index::open(table) else { return };
    let is_whole = index.verify().is_ok();
    let inodes = u32::try_from(index.counts().inodes).unwrap_or(u32::MAX);
    let looks = u32::try_from(LOOKS).unwrap_or(u32::MAX);
    for ino in (0..inodes.saturating_add(2).min(looks)).chain([inodes, u32::MAX]) {
        look(&index, Ino(ino), is_whole);
    }
}

fn look(index: &Index<&[u8]>, ino: Ino, is_whole: bool) {
    let inode = index.inode(ino);
    let mut before: Option<&[u8]> = None;
    for (n, entry) in (0..).zip(index.entries(ino).take(LOOKS)) {
        if is_whole {
            assert_eq!(index.lookup(ino, entry.name), Some(entry.ino), "a name that is listed is not found");
            assert_eq!(index.entry_at(ino, n), Some(entry));
            assert!(before.is_none_or(|before| before < entry.name), "names out of order");
            assert!(!entry.name.contains(&b'/') && entry.name != b"." && entry.name != b"..");
        }
        before = Some(entry.name);
    }
    if is_whole && inode.is_some_and(|inode| inode.kind == Kind::Folder) {
        let parent = index.parent(ino).expect("a folder has a parent");
        assert!(index.inode(parent).is_some());
    }
    index.lookup(ino, b"a");
    index.entry_at(ino, u32::MAX);
    index.parent(ino);
    index.link_target(ino);
    index.xattr(ino, b"user.a");
    index.xattrs(ino).take(LOOKS).for_each(drop);
    if let Some(Content::Extents(extents)) = index.content(ino) {
        for extent in extents.iter().take(LOOKS) {
            extents.from(extent.file_offset).take(2).for_each(drop);
            if is_whole {
                assert!(extent.file_offset + extent.len <= inode.map_or(0, |inode| inode.size));
            }
        }
        extents.from(u64::MAX).take(2).for_each(drop);
    }
}
