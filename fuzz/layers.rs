// SPDX-License-Identifier: Apache-2.0
//! Layers' tar streams, in the image they make: packed as `docker save` does and loaded into a store. A load that is
//! refused leaves nothing in the store; one that is taken gives an index that holds, over data that is there.

use arbitrary::{Arbitrary, Unstructured};
use isopod_image::{Digest, Store};
use isopod_index::{Content, Index, Ino};
use std::fs;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use tempfile::TempDir;

const BLOCK: usize = 512;
const MAX_LAYERS: usize = 4;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    layers: Vec<Layer<'a>>,
    /// Changes of the archive that has the layers in it.
    damage: Vec<Damage>,
}

#[derive(Debug, Arbitrary)]
enum Layer<'a> {
    Entries(Vec<Entry<'a>>),
    Unended(Vec<Entry<'a>>),
    Bytes(&'a [u8]),
}

#[derive(Debug, Arbitrary)]
struct Damage {
    at: u16,
    xor: u8,
}

#[derive(Debug, Arbitrary)]
struct Entry<'a> {
    kind: Kind,
    name: Name<'a>,
    link: Name<'a>,
    content: &'a [u8],
    mode: u16,
    owner: u32,
    time: u32,
    device: (u16, u16),
    pax: Vec<(Key<'a>, Value<'a>)>,
    size: Option<u32>,
    /// A byte of the header changed; the checksum is right again unless it is the checksum's.
    spoilt: Option<Damage>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
    LongName,
    LongLink,
    Global,
    Sparse,
    Any(u8),
}

#[derive(Debug, Arbitrary)]
enum Name<'a> {
    One(u8),
    Two(u8, u8),
    Whiteout(u8),
    OpaqueIn(u8),
    Any(&'a [u8]),
}

#[derive(Debug, Arbitrary)]
enum Key<'a> {
    Path,
    LinkPath,
    Size,
    Time,
    Owner,
    Xattr(u8),
    SparseMajor,
    SparseMinor,
    SparseMap,
    SparseRealSize,
    SparseName,
    Any(&'a str),
}

#[derive(Debug, Arbitrary)]
enum Value<'a> {
    Number(u32),
    Fraction(i32, u32),
    Name(Name<'a>),
    Map(Vec<(u16, u16)>),
    Any(&'a [u8]),
}

pub(crate) fn layers(bytes: &[u8]) {
    let Ok(input) = Unstructured::new(bytes).arbitrary::<Input<'_>>() else {
        return;
    };
    let layers: Vec<_> = input.layers.iter().take(MAX_LAYERS).map(layer).collect();
    let mut archive = docker_save(&layers);
    for Damage { at, xor } in &input.damage {
        let at = usize::from(*at) % archive.len();
        archive[at] ^= xor;
    }
    let folder = folder();
    let store = Store::open(folder.path().join("store")).expect("a store can be made");
    match store.load_reader(&archive[..], &()) {
        Ok(loaded) => loaded.iter().for_each(|image| check(&store, &image.digest)),
        Err(_) => assert!(store.list().is_ok_and(|list| list.is_empty()), "what was refused is listed"),
    }
    assert_eq!(left_behind(&folder.path().join("store").join("tmp")), 0, "left behind in the store");
}

/// In memory, where there is such a place.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary folder")
}

pub(crate) fn left_behind(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// An image that was taken in must be one that can be served.
fn check(store: &Store, digest: &Digest) {
    let mut image = store.resolve(&format!("sha256:{}", digest.hex())).expect("what was loaded is there");
    let mut table = Vec::new();
    image.index.read_to_end(&mut table).expect("an index can be read");
    let index = Index::open(table).expect("an index that opens");
    index.verify().expect("an index that holds");
    for ino in (1..=u32::try_from(index.counts().inodes).expect("they are numbered with u32")).map(Ino) {
        let Some(Content::Extents(extents)) = index.content(ino) else {
            continue;
        };
        for extent in extents.iter() {
            let data = image.layers.get(usize::from(extent.layer)).expect("a data file that was named");
            let len = data.metadata().expect("a file has a length").len();
            assert!(extent.data_offset + extent.len <= len, "contents behind the end of the data");
        }
    }
}

/// The archive `docker save` writes of one image.
fn docker_save(layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<_> = layers.iter().map(|layer| format!("\"sha256:{}\"", Digest::of(layer).hex())).collect();
    let names: Vec<_> = (0..layers.len()).map(|n| format!("\"{n}.tar\"")).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":["fuzz:latest"],"Layers":[{}]}}]"#, names.join(","));
    let mut out = Vec::new();
    for (n, layer) in layers.iter().enumerate() {
        member(&mut out, &format!("{n}.tar"), layer);
    }
    member(&mut out, "config.json", config.as_bytes());
    member(&mut out, "manifest.json", manifest.as_bytes());
    out.extend_from_slice(&[0; 2 * BLOCK]);
    out
}

pub(crate) fn member(out: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = Header::new(b'0');
    header.text(0..100, name.as_bytes());
    header.number(124..136, u64::try_from(content.len()).expect("it is in memory"));
    header.put(out);
    padded(out, content);
}

fn layer(layer: &Layer<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match layer {
        Layer::Entries(entries) => {
            entries.iter().for_each(|entry| put(&mut out, entry));
            out.extend_from_slice(&[0; 2 * BLOCK]);
        }
        Layer::Unended(entries) => entries.iter().for_each(|entry| put(&mut out, entry)),
        Layer::Bytes(bytes) => out.extend_from_slice(bytes),
    }
    out
}

fn put(out: &mut Vec<u8>, entry: &Entry<'_>) {
    if !entry.pax.is_empty() {
        let records: Vec<u8> = entry.pax.iter().flat_map(|(key, value)| record(key, value)).collect();
        let mut header = Header::new(b'x');
        header.text(0..100, b"PaxHeaders/x");
        header.number(124..136, u64::try_from(records.len()).expect("it is in memory"));
        header.put(out);
        padded(out, &records);
    }
    let has_content = matches!(
        entry.kind,
        Kind::File | Kind::LongName | Kind::LongLink | Kind::Global | Kind::Sparse | Kind::Any(_)
    );
    let content = if has_content { entry.content } else { b"" };
    let size = entry.size.map_or(u64::try_from(content.len()).expect("it is in memory"), u64::from);
    let mut header = Header::new(entry.kind.flag());
    header.text(0..100, &name(&entry.name));
    header.number(100..108, u64::from(entry.mode));
    header.number(108..116, u64::from(entry.owner) & 0x1f_ffff);
    header.number(116..124, u64::from(entry.owner >> 8) & 0x1f_ffff);
    header.number(124..136, size);
    header.number(136..148, u64::from(entry.time));
    header.text(157..257, &name(&entry.link));
    header.number(329..337, u64::from(entry.device.0));
    header.number(337..345, u64::from(entry.device.1));
    header.spoil(entry.spoilt.as_ref());
    header.put(out);
    padded(out, content);
}

impl Kind {
    fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Folder => b'5',
            Self::Fifo => b'6',
            Self::LongName => b'L',
            Self::LongLink => b'K',
            Self::Global => b'g',
            Self::Sparse => b'S',
            Self::Any(flag) => flag,
        }
    }
}

fn name(name: &Name<'_>) -> Vec<u8> {
    const NAMES: [&[u8]; 16] = [
        b"a", b"b", b"c", b"d", b"bin", b"etc", b"usr", b"./a", b"a/", b"/a", b"..", b".", b"a/../b", b"./",
        b"", b"b/",
    ];
    let one = |n: &u8| NAMES[usize::from(*n) % NAMES.len()];
    match name {
        Name::One(n) => one(n).to_vec(),
        Name::Two(n, m) => [one(n), b"/", one(m)].concat(),
        Name::Whiteout(n) => [b".wh.", one(n)].concat(),
        Name::OpaqueIn(n) => [one(n), b"/.wh..wh..opq"].concat(),
        Name::Any(bytes) => bytes.to_vec(),
    }
}

/// A PAX record: its own length, key and value.
fn record(key: &Key<'_>, value: &Value<'_>) -> Vec<u8> {
    let mut text = b" ".to_vec();
    text.extend_from_slice(key_name(key).as_bytes());
    text.push(b'=');
    text.extend_from_slice(&value_text(value));
    text.push(b'\n');
    let mut len = text.len() + 1;
    while len.to_string().len() + text.len() != len {
        len += 1;
    }
    [len.to_string().as_bytes(), &text].concat()
}

fn key_name(key: &Key<'_>) -> String {
    match key {
        Key::Path => "path".to_owned(),
        Key::LinkPath => "linkpath".to_owned(),
        Key::Size => "size".to_owned(),
        Key::Time => "mtime".to_owned(),
        Key::Owner => "uid".to_owned(),
        Key::Xattr(n) => format!("SCHILY.xattr.user.{}", n % 4),
        Key::SparseMajor => "GNU.sparse.major".to_owned(),
        Key::SparseMinor => "GNU.sparse.minor".to_owned(),
        Key::SparseMap => "GNU.sparse.map".to_owned(),
        Key::SparseRealSize => "GNU.sparse.realsize".to_owned(),
        Key::SparseName => "GNU.sparse.name".to_owned(),
        Key::Any(any) => (*any).to_owned(),
    }
}

fn value_text(value: &Value<'_>) -> Vec<u8> {
    match value {
        Value::Number(n) => n.to_string().into_bytes(),
        Value::Fraction(whole, part) => format!("{whole}.{part}").into_bytes(),
        Value::Name(of) => name(of),
        Value::Map(pieces) => {
            let numbers: Vec<_> =
                pieces.iter().flat_map(|(at, len)| [at.to_string(), len.to_string()]).collect();
            numbers.join(",").into_bytes()
        }
        Value::Any(bytes) => bytes.to_vec(),
    }
}

fn padded(out: &mut Vec<u8>, content: &[u8]) {
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// A ustar header, whose checksum is right when it is put.
struct Header {
    block: [u8; BLOCK],
    is_summed: bool,
}

impl Header {
    fn new(flag: u8) -> Self {
        let mut header = Self { block: [0; BLOCK], is_summed: true };
        header.block[156] = flag;
        header.block[257..265].copy_from_slice(b"ustar\x0000");
        header
    }

    fn text(&mut self, field: Range<usize>, text: &[u8]) {
        let len = text.len().min(field.len());
        self.block[field.start..field.start + len].copy_from_slice(&text[..len]);
    }

    fn number(&mut self, field: Range<usize>, number: u64) {
        let text = format!("{number:0width$o}\0", width = field.len() - 1);
        self.text(field, text.as_bytes());
    }

    fn spoil(&mut self, damage: Option<&Damage>) {
        let Some(Damage { at, xor }) = damage else { return };
        let at = usize::from(*at) % BLOCK;
        self.block[at] ^= xor;
        self.is_summed = !(148..156).contains(&at);
    }

    fn put(mut self, out: &mut Vec<u8>) {
        if self.is_summed {
            self.block[148..156].fill(b' ');
            let sum: u64 = self.block.iter().copied().map(u64::from).sum();
            let text = format!("{sum:06o}\0 ");
            self.text(148..156, text.as_bytes());
        }
        out.write_all(&self.block).expect("a vector takes bytes");
    }
}
