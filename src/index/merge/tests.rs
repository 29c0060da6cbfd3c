// SPDX-License-Identifier: Apache-2.0
//! Merging against a model: a file system as a map of paths, to which entries are applied one by one as umoci does.
//!
//! One difference is meant: umoci lets a folder that an entry's path merely passes through keep a lower layer's
//! attributes if a whiteout of a folder above it comes later in the archive, and not if it comes earlier. Here the
//! order does not matter, and it keeps none.

use super::*;
use crate::build::{Attributes, Body, Found, Node, Tree};
use crate::format::Use;
use crate::read::{Content, Extent};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

type Path = Vec<u8>;

#[derive(Debug, Clone)]
enum Entry {
    Folder(Path),
    File(Path),
    Symlink(Path),
    Whiteout(Path),
    Opaque(Path),
    Link(Path, Path),
}

#[derive(Debug, Clone, PartialEq)]
enum Thing {
    Folder(u32),
    File(u32),
    Symlink(u32),
}

/// Paths `a` to `cccc`, each letter a name.
#[derive(Debug, Default)]
struct Model {
    things: BTreeMap<Path, Thing>,
    upper: BTreeSet<Path>,
    described: BTreeSet<Path>,
}

impl Model {
    fn remove(&mut self, path: &[u8]) {
        self.things.retain(|p, _| !p.starts_with(path));
    }

    /// Whether an entry at this path is worth trying: no symlink on the way, in any layer.
    fn reachable(&self, path: &[u8]) -> bool {
        (1..path.len()).all(|n| !matches!(self.things.get(&path[..n]), Some(Thing::Symlink(_))))
    }

    fn make_parents(&mut self, path: &[u8]) {
        for n in 1..path.len() {
            if !matches!(self.things.get(&path[..n]), Some(Thing::Folder(_))) {
                self.things.insert(path[..n].to_vec(), Thing::Folder(0));
            }
            self.upper.insert(path[..n].to_vec());
        }
    }

    fn put(&mut self, path: &[u8], thing: Thing) {
        self.make_parents(path);
        let both = matches!((&thing, self.things.get(path)), (Thing::Folder(_), Some(Thing::Folder(_))));
        if !both {
            self.remove(path);
        }
        self.things.insert(path.to_vec(), thing);
        self.upper.insert(path.to_vec());
        self.described.insert(path.to_vec());
    }

    fn whiteout(&mut self, path: &[u8], itself: bool) {
        let upper = &self.upper;
        self.things.retain(|p, _| !p.starts_with(path) || upper.contains(p) || (!itself && p == path));
        // What is above something kept was kept; what is beneath something removed goes too.
        let kept: BTreeSet<_> = self.things.keys().cloned().collect();
        self.things.retain(|p, _| (1..p.len()).all(|n| kept.contains(&p[..n])));
        for (p, thing) in &mut self.things {
            let beneath = p.starts_with(path) && p != path;
            if beneath && matches!(thing, Thing::Folder(_)) && !self.described.contains(p) {
                *thing = Thing::Folder(0);
            }
        }
    }
}

/// The parent of a path in a layer's tree, as far as the layer lets it be one.
fn parent(tree: &mut Tree, path: &[u8]) -> Option<Node> {
    let mut node = Tree::ROOT;
    for name in &path[..path.len() - 1] {
        node = tree.enter(node, &[*name]).ok()?;
    }
    Some(node)
}

fn find(tree: &Tree, path: &[u8]) -> Option<Node> {
    let mut node = Tree::ROOT;
    for (n, name) in path.iter().enumerate() {
        match tree.find(node, &[*name]) {
            Found::Folder(next) if n + 1 < path.len() => node = next,
            Found::Symlink(next, _) | Found::Other(next) if n + 1 == path.len() => return Some(next),
            _ => return None,
        }
    }
    None
}

/// Whether the layer itself has a file where the path needs a folder.
fn blocked(tree: &Tree, path: &[u8]) -> bool {
    let mut node = Tree::ROOT;
    for name in &path[..path.len() - 1] {
        match tree.find(node, &[*name]) {
            Found::Folder(next) => node = next,
            Found::Nothing => return false,
            _ => return true,
        }
    }
    false
}

/// Applies an entry to both, or to neither.
fn apply(model: &mut Model, tree: &mut Tree, entry: &Entry, id: u32) {
    let (Entry::Folder(path)
    | Entry::File(path)
    | Entry::Symlink(path)
    | Entry::Whiteout(path)
    | Entry::Opaque(path)
    | Entry::Link(path, _)) = entry;
    if !model.reachable(path) || blocked(tree, path) {
        return;
    }
    let attributes = Attributes { mode: 0o755, uid: id, ..Attributes::default() };
    let (&[name], way) = (path.last_chunk::<1>().unwrap(), path.as_slice());
    let body = match entry {
        Entry::Folder(_) => Body::Folder,
        Entry::File(_) => Body::Inline(b"contents"),
        Entry::Symlink(_) => Body::Symlink(b"c"),
        Entry::Whiteout(_) => {
            // What is not there below has no parents either; umoci makes none for a whiteout.
            if model.things.contains_key(path) {
                let folder = parent(tree, way).unwrap();
                tree.whiteout(folder, &[name]).unwrap();
                model.make_parents(path);
                model.whiteout(path, true);
            }
            return;
        }
        Entry::Opaque(_) => {
            if matches!(model.things.get(path), Some(Thing::Folder(_)))
                && !blocked(tree, &[way, b"x"].concat())
            {
                let folder = parent(tree, &[way, b"x"].concat()).unwrap();
                tree.opaque(folder);
                model.make_parents(&[way, b"x"].concat());
                model.whiteout(path, false);
            }
            return;
        }
        Entry::Link(_, target) => {
            let there = model.things.get(target).cloned();
            if !matches!(there, Some(Thing::File(_) | Thing::Symlink(_)))
                || !model.reachable(target)
                || path.starts_with(target)
                || target.starts_with(path)
            {
                return;
            }
            let folder = parent(tree, way).unwrap();
            match find(tree, target) {
                Some(node) => tree.link(folder, &[name], node).unwrap(),
                None => {
                    let target: Vec<&[u8]> = target.chunks(1).collect();
                    tree.link_later(folder, &[name], &target.join(&b'/')).unwrap();
                }
            }
            model.put(path, there.unwrap());
            return;
        }
    };
    let folder = parent(tree, way).unwrap();
    tree.put(folder, &[name], &attributes, body).unwrap();
    model.put(
        path,
        match entry {
            Entry::Folder(_) => Thing::Folder(id),
            Entry::File(_) => Thing::File(id),
            _ => Thing::Symlink(id),
        },
    );
}

fn listing(index: &Index<Vec<u8>>, dir: Ino, at: &[u8], out: &mut BTreeMap<Path, Thing>) {
    for entry in index.entries(dir) {
        let path = [at, entry.name].concat();
        let uid = index.inode(entry.ino).unwrap().uid;
        out.insert(
            path.clone(),
            match entry.kind {
                Kind::Folder => Thing::Folder(uid),
                Kind::File => Thing::File(uid),
                _ => Thing::Symlink(uid),
            },
        );
        listing(index, entry.ino, &path, out);
    }
}

fn layer(tree: &Tree) -> Index<Vec<u8>> {
    let mut out = Vec::new();
    tree.write(&mut out).unwrap();
    let index = Index::open(out).unwrap();
    index.verify().unwrap();
    index
}

fn merged(layers: &[Index<Vec<u8>>]) -> Index<Vec<u8>> {
    let mut out = Vec::new();
    merge(layers, &mut out).unwrap();
    let index = Index::open(out).unwrap();
    index.verify().unwrap();
    index
}

fn path() -> impl Strategy<Value = Path> {
    vec(b'a'..=b'c', 1..5)
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        3 => path().prop_map(Entry::Folder),
        3 => path().prop_map(Entry::File),
        1 => path().prop_map(Entry::Symlink),
        2 => path().prop_map(Entry::Whiteout),
        1 => path().prop_map(Entry::Opaque),
        2 => (path(), path()).prop_map(|(a, b)| Entry::Link(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn merged_layers_are_what_applying_them_one_by_one_gives(layers in vec(vec(entry(), 0..12), 1..6)) {
        let mut model = Model::default();
        let mut indexes = Vec::new();
        let mut id = 0;
        for entries in &layers {
            model.upper.clear();
            model.described.clear();
            let mut tree = Tree::new(Use::Layer, 1 << 20);
            for entry in entries {
                id += 1;
                apply(&mut model, &mut tree, entry, id);
            }
            indexes.push(layer(&tree));
        }
        let mut have = BTreeMap::new();
        listing(&merged(&indexes), Ino::ROOT, b"", &mut have);
        prop_assert_eq!(have, model.things);
    }
}

fn any() -> Attributes {
    Attributes { mode: 0o755, uid: 5, ..Attributes::default() }
}

fn with(build: impl FnOnce(&mut Tree)) -> Index<Vec<u8>> {
    let mut tree = Tree::new(Use::Layer, 1 << 20);
    build(&mut tree);
    layer(&tree)
}

fn look_up(index: &Index<Vec<u8>>, path: &str) -> Option<Ino> {
    path.split('/').try_fold(Ino::ROOT, |dir, name| index.lookup(dir, name.as_bytes()))
}

#[test]
fn a_link_to_a_file_of_a_lower_layer_is_a_name_of_that_file() {
    let lower = with(|t| {
        t.put(Tree::ROOT, b"a", &any(), Body::Inline(b"one")).unwrap();
    });
    let upper = with(|t| {
        t.link_later(Tree::ROOT, b"b", b"a").unwrap();
        t.whiteout(Tree::ROOT, b"c").unwrap();
    });
    let index = merged(&[lower, upper]);
    assert_eq!(look_up(&index, "a"), look_up(&index, "b"));
    assert_eq!(index.inode(look_up(&index, "a").unwrap()).unwrap().nlink, 2);
}

#[test]
fn a_link_to_what_the_layer_itself_takes_away_still_finds_it() {
    let lower = with(|t| {
        t.put(Tree::ROOT, b"a", &any(), Body::Inline(b"one")).unwrap();
    });
    let upper = with(|t| {
        t.whiteout(Tree::ROOT, b"a").unwrap();
        t.link_later(Tree::ROOT, b"b", b"a").unwrap();
    });
    let index = merged(&[lower, upper]);
    assert_eq!(look_up(&index, "a"), None);
    assert!(look_up(&index, "b").is_some());
}

#[test]
fn a_link_to_nothing_is_refused_by_layer_and_path() {
    let lower = with(|_| ());
    let upper = with(|t| {
        let folder = t.enter(Tree::ROOT, b"d").unwrap();
        t.link_later(folder, b"b", b"no/such").unwrap();
    });
    let error = merge(&[lower, upper], &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "cannot apply layer 2 at `/d/b`");
    assert!(error.source().unwrap().to_string().contains("no/such"));
}

#[test]
fn an_undescribed_folder_over_a_symlink_means_where_it_leads_within_the_root() {
    for target in [&b"usr/bin"[..], b"/usr/bin", b"../../../usr/bin", b"/../usr/./bin"] {
        let lower = with(|t| {
            let usr = t.put(Tree::ROOT, b"usr", &any(), Body::Folder).unwrap();
            let bin = t.put(usr, b"bin", &any(), Body::Folder).unwrap();
            t.put(bin, b"old", &any(), Body::Fifo).unwrap();
            t.put(bin, b"sh", &any(), Body::Fifo).unwrap();
            t.put(Tree::ROOT, b"bin", &any(), Body::Symlink(target)).unwrap();
        });
        let upper = with(|t| {
            let bin = t.enter(Tree::ROOT, b"bin").unwrap();
            t.put(bin, b"new", &any(), Body::Fifo).unwrap();
            t.whiteout(bin, b"old").unwrap();
        });
        let index = merged(&[lower, upper]);
        assert!(look_up(&index, "usr/bin/new").is_some());
        assert!(look_up(&index, "usr/bin/sh").is_some());
        assert!(look_up(&index, "usr/bin/old").is_none());
        assert_eq!(index.inode(look_up(&index, "bin").unwrap()).unwrap().kind, Kind::Symlink);
        assert_eq!(index.inode(look_up(&index, "usr/bin").unwrap()).unwrap().uid, 5);
    }
}

#[test]
fn a_described_folder_takes_a_symlinks_place() {
    let lower = with(|t| {
        t.put(Tree::ROOT, b"bin", &any(), Body::Symlink(b"usr")).unwrap();
    });
    let upper = with(|t| {
        t.put(Tree::ROOT, b"bin", &any(), Body::Folder).unwrap();
    });
    let index = merged(&[lower, upper]);
    assert_eq!(index.inode(look_up(&index, "bin").unwrap()).unwrap().kind, Kind::Folder);
}

#[test]
fn a_loop_of_symlinks_ends_with_an_error() {
    let lower = with(|t| {
        t.put(Tree::ROOT, b"a", &any(), Body::Symlink(b"b")).unwrap();
        t.put(Tree::ROOT, b"b", &any(), Body::Symlink(b"a")).unwrap();
    });
    let upper = with(|t| {
        let a = t.enter(Tree::ROOT, b"a").unwrap();
        t.put(a, b"x", &any(), Body::Fifo).unwrap();
    });
    let error = merge(&[lower, upper], &mut Vec::new()).unwrap_err();
    assert!(matches!(error.cause, BuildError::LinkLoop(_)));
}

#[test]
fn forty_layers_keep_their_places_in_their_own_data() {
    let layers: Vec<_> = (0..40u8)
        .map(|n| {
            with(|t| {
                let extents = [
                    Extent { file_offset: 0, len: 10, layer: 0, data_offset: 4096 },
                    Extent { file_offset: 8192, len: 1, layer: 0, data_offset: 8192 },
                ];
                t.put(Tree::ROOT, &[b'a', n + 1], &any(), Body::File { size: 10, extents: &extents[..1] })
                    .unwrap();
                t.put(Tree::ROOT, &[b'b', n + 1], &any(), Body::File { size: 9000, extents: &extents })
                    .unwrap();
            })
        })
        .collect();
    let index = merged(&layers);
    assert_eq!(index.layers(), 40);
    for n in 0..40u8 {
        for (name, pieces) in [(b'a', 1), (b'b', 2)] {
            let ino = index.lookup(Ino::ROOT, &[name, n + 1]).unwrap();
            let Some(Content::Extents(extents)) = index.content(ino) else { panic!("not in pieces") };
            assert_eq!(extents.len(), pieces);
            assert!(extents.iter().all(|e| e.layer == u16::from(n)));
        }
    }
}
