// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::format::encode_header;
use crate::read::{Content, Index, Ino, Inode};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::{any as whole, *};

const LIMIT: usize = 1 << 20;

fn written(tree: &Tree) -> Index<Vec<u8>> {
    let mut out = Vec::new();
    tree.write(&mut out).unwrap();
    let index = Index::open(out).unwrap();
    index.verify().unwrap();
    index
}

fn image() -> Tree {
    Tree::new(Use::Image, LIMIT)
}

fn any() -> Attributes {
    Attributes { mode: 0o644, uid: 7, gid: 8, ..Attributes::default() }
}

#[derive(Debug, Clone)]
enum Thing {
    Folder(BTreeMap<Vec<u8>, (Attributes, Thing)>),
    Symlink(Vec<u8>),
    Inline(Vec<u8>),
    File(u64, Vec<Extent>),
    Device(bool, Device),
    Fifo,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any_byte(), 1..12).prop_filter("a name", |name| good_name(name))
}

fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![b'a'..=b'd', whole::<u8>()]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let xattrs = btree_map(vec(1u8.., 1..20), vec(whole::<u8>(), 0..40), 0..3);
    let time = (whole::<i64>(), 0u32..1_000_000_000);
    (0u16..0o10_000, whole::<u32>(), whole::<u32>(), time, xattrs).prop_map(
        |(mode, uid, gid, (seconds, nanoseconds), xattrs)| Attributes {
            mode,
            uid,
            gid,
            mtime: Time { seconds, nanoseconds },
            xattrs,
        },
    )
}

/// Pieces with gaps between them, and the file's size.
fn pieces() -> impl Strategy<Value = Thing> {
    (vec((0u64..5, 1u64..5, 0u64..1 << 40), 0..5), 0u64..3).prop_map(|(pieces, rest)| {
        let mut end = 0;
        let mut extents = Vec::new();
        for (gap, len, data_offset) in pieces {
            extents.push(Extent { file_offset: end + gap, len, layer: 0, data_offset });
            end += gap + len;
        }
        Thing::File(end + rest, extents)
    })
}

fn thing() -> impl Strategy<Value = Thing> {
    let leaf = prop_oneof![
        vec(1u8.., 1..30).prop_map(Thing::Symlink),
        vec(whole::<u8>(), 0..100).prop_map(Thing::Inline),
        pieces(),
        (whole::<bool>(), 0u32..4096, 0u32..1 << 20)
            .prop_map(|(block, major, minor)| Thing::Device(block, Device { major, minor })),
        Just(Thing::Fifo),
    ];
    leaf.prop_recursive(4, 60, 8, |inner| {
        btree_map(name(), (attributes(), inner), 0..8).prop_map(Thing::Folder)
    })
}

fn plant(tree: &mut Tree, folder: Node, things: &BTreeMap<Vec<u8>, (Attributes, Thing)>) {
    for (name, (attributes, thing)) in things {
        let body = match thing {
            Thing::Folder(_) => Body::Folder,
            Thing::Symlink(target) => Body::Symlink(target),
            Thing::Inline(bytes) => Body::Inline(bytes),
            Thing::File(size, extents) => Body::File { size: *size, extents },
            Thing::Device(true, device) => Body::BlockDevice(*device),
            Thing::Device(false, device) => Body::CharDevice(*device),
            Thing::Fifo => Body::Fifo,
        };
        let node = tree.put(folder, name, attributes, body).unwrap();
        if let Thing::Folder(things) = thing {
            plant(tree, node, things);
        }
    }
}

fn same_attributes(index: &Index<Vec<u8>>, inode: &Inode, attributes: &Attributes) {
    let have = Attributes {
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        mtime: inode.mtime,
        xattrs: index.xattrs(inode.ino).map(|(n, v)| (n.to_vec(), v.to_vec())).collect(),
    };
    assert_eq!(&have, attributes);
}

fn compare(index: &Index<Vec<u8>>, dir: Ino, things: &BTreeMap<Vec<u8>, (Attributes, Thing)>) {
    let names: Vec<_> = index.entries(dir).map(|e| e.name.to_vec()).collect();
    assert_eq!(names, things.keys().cloned().collect::<Vec<_>>());
    for (n, (name, (attributes, thing))) in (0u32..).zip(things) {
        let ino = index.lookup(dir, name).unwrap();
        assert_eq!(index.entry_at(dir, n).unwrap().ino, ino);
        let inode = index.inode(ino).unwrap();
        same_attributes(index, &inode, attributes);
        match thing {
            Thing::Folder(things) => {
                assert_eq!(index.parent(ino), Some(dir));
                compare(index, ino, things);
            }
            Thing::Symlink(target) => assert_eq!(index.link_target(ino), Some(&target[..])),
            Thing::Inline(bytes) => match index.content(ino).unwrap() {
                Content::Inline(have) => assert_eq!(have, bytes),
                Content::Extents(none) => assert!(none.is_empty() && bytes.is_empty()),
            },
            Thing::File(size, extents) => {
                assert_eq!(inode.size, *size);
                let Content::Extents(have) = index.content(ino).unwrap() else { panic!("inline") };
                assert_eq!(have.iter().collect::<Vec<_>>(), *extents);
                for offset in 0..*size + 1 {
                    let after = |e: &&Extent| e.file_offset + e.len > offset;
                    assert_eq!(have.from(offset).next().as_ref(), extents.iter().find(after));
                }
            }
            Thing::Device(block, device) => {
                assert_eq!((inode.kind == Kind::BlockDevice, inode.rdev), (*block, *device));
            }
            Thing::Fifo => assert_eq!(inode.kind, Kind::Fifo),
        }
    }
}

fn use_everything(bytes: Vec<u8>) {
    let Ok(index) = Index::open(bytes) else { return };
    let _ = index.verify();
    for ino in (0..40).chain([u32::MAX]).map(Ino) {
        let _ = (index.inode(ino), index.parent(ino), index.link_target(ino), index.lookup(ino, b"b"));
        let _ = (index.entries(ino).take(10_000).count(), index.entry_at(ino, 3), index.xattr(ino, b"x"));
        if let Some(Content::Extents(extents)) = index.content(ino) {
            let _ = extents.from(3).take(10_000).count();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_built_is_what_is_read(things in btree_map(name(), (attributes(), thing()), 0..8)) {
        let mut tree = image();
        plant(&mut tree, Tree::ROOT, &things);
        compare(&written(&tree), Ino::ROOT, &things);
    }

    #[test]
    fn a_reader_of_changed_bytes_answers_or_declines(
        things in btree_map(name(), (attributes(), thing()), 0..8),
        flips in vec((whole::<usize>(), whole::<u8>()), 1..6),
        cut in of(whole::<usize>()),
    ) {
        let mut tree = image();
        plant(&mut tree, Tree::ROOT, &things);
        let mut bytes = Vec::new();
        tree.write(&mut bytes).unwrap();
        for (place, value) in flips {
            let len = bytes.len();
            bytes[place % len] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % (bytes.len() + 1));
        }
        use_everything(bytes);
    }

    #[test]
    fn a_reader_of_any_bytes_answers_or_declines(rest in vec(whole::<u8>(), 0..600)) {
        let (mut bytes, _) = encode_header(Use::Image, 1, 0, [48, 12, 24, 8, 8, 8]);
        let mut whole = bytes.to_vec();
        whole.extend_from_slice(&rest);
        bytes[16..24].copy_from_slice(&(whole.len() as u64).to_le_bytes());
        whole[..bytes.len()].copy_from_slice(&bytes);
        use_everything(whole);
    }
}

#[test]
fn hard_links_share_a_node_and_are_counted() {
    let mut tree = image();
    let node = tree.put(Tree::ROOT, b"a", &any(), Body::Inline(b"x")).unwrap();
    let folder = tree.enter(Tree::ROOT, b"d").unwrap();
    tree.link(folder, b"b", node).unwrap();
    let index = written(&tree);
    let a = index.lookup(Ino::ROOT, b"a").unwrap();
    let d = index.lookup(Ino::ROOT, b"d").unwrap();
    assert_eq!(index.lookup(d, b"b"), Some(a));
    assert_eq!(index.inode(a).unwrap().nlink, 2);
    assert_eq!(index.inode(d).unwrap().nlink, 2);
    assert_eq!(index.inode(Ino::ROOT).unwrap().nlink, 3);
    assert_eq!(index.counts().inodes, 3);
}

#[test]
fn a_name_given_again_leaves_nothing_of_what_it_was() {
    let mut tree = image();
    let folder = tree.put(Tree::ROOT, b"a", &any(), Body::Folder).unwrap();
    tree.put(folder, b"gone", &any(), Body::Fifo).unwrap();
    tree.put(Tree::ROOT, b"a", &any(), Body::Fifo).unwrap();
    let index = written(&tree);
    assert_eq!(index.counts().inodes, 2);
}

#[test]
fn names_a_folder_cannot_have_are_refused() {
    let mut tree = image();
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'a'; 256]] {
        assert!(matches!(tree.put(Tree::ROOT, name, &any(), Body::Fifo), Err(BuildError::BadName)));
        assert!(matches!(tree.enter(Tree::ROOT, name), Err(BuildError::BadName)));
        assert!(matches!(tree.whiteout(Tree::ROOT, name), Err(BuildError::BadName)));
    }
    tree.put(Tree::ROOT, &[b'a'; 255], &any(), Body::Fifo).unwrap();
    written(&tree);
}

#[test]
fn a_tree_does_not_outgrow_its_limit() {
    let mut tree = Tree::new(Use::Layer, 4096);
    let mut result = Ok(Tree::ROOT);
    for n in 0..1000u32 {
        result = tree.put(Tree::ROOT, &n.to_le_bytes().map(|b| b | 0x80), &any(), Body::Fifo);
        if result.is_err() {
            break;
        }
    }
    assert!(matches!(result, Err(BuildError::TooLarge { limit: 4096 })));
    assert!(tree.memory() < 8192);
}

#[test]
fn a_million_entries_fit_in_72_mib() {
    let mut tree = Tree::new(Use::Layer, 72 << 20);
    for n in 0..1_000_000u32 {
        let name = format!("file-{n:06}");
        tree.put(Tree::ROOT, name.as_bytes(), &any(), Body::Fifo).unwrap();
    }
    assert!(tree.memory() < 72 << 20);
}

#[test]
fn a_path_longer_than_linux_allows_is_not_written() {
    let mut tree = Tree::new(Use::Layer, LIMIT);
    let mut folder = Tree::ROOT;
    for _ in 0..3000 {
        folder = tree.enter(folder, b"d").unwrap();
    }
    assert!(matches!(tree.write(&mut Vec::new()), Err(BuildError::PathTooLong { .. })));
}
