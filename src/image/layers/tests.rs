// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::tar::write::Writer;
use flate2::Compression;
use flate2::write::GzEncoder;
use isopod_index::format::Kind;
use isopod_index::{Content, Index, Ino};
use proptest::collection::vec;
use proptest::prelude::*;
use std::error::Error as _;

type Layer = (Index<Vec<u8>>, Vec<u8>);

fn unpacked(bytes: &[u8]) -> Result<Layer, LayerError> {
    let (unpacked, _) = unpack(bytes, Vec::new(), &Limits::default())?;
    let mut index = Vec::new();
    unpacked.tree.write(&mut index).unwrap();
    let index = Index::open(index).unwrap();
    index.verify().unwrap();
    Ok((index, unpacked.data))
}

fn good(writer: Writer) -> Layer {
    unpacked(&writer.end()).unwrap()
}

/// The message and its cause.
fn refused(writer: Writer) -> String {
    let error = unpacked(&writer.end()).unwrap_err();
    format!("{error}: {}", error.source().unwrap())
}

fn find(index: &Index<Vec<u8>>, path: &str) -> Option<Ino> {
    path.split('/').try_fold(Ino::ROOT, |dir, name| index.lookup(dir, name.as_bytes()))
}

fn contents((index, data): &Layer, path: &str) -> Vec<u8> {
    let ino = find(index, path).unwrap();
    let mut out = vec![0; usize::try_from(index.inode(ino).unwrap().size).unwrap()];
    let at = |n: u64| usize::try_from(n).unwrap();
    match index.content(ino).unwrap() {
        Content::Inline(bytes) => out.copy_from_slice(bytes),
        Content::Extents(extents) => {
            for e in extents.iter() {
                let from = &data[at(e.data_offset)..at(e.data_offset + e.len)];
                out[at(e.file_offset)..at(e.file_offset + e.len)].copy_from_slice(from);
            }
        }
    }
    out
}

#[test]
fn contents_of_every_size_come_back() {
    let sizes = [0usize, 1, 511, 512, 513, 4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000];
    let pattern: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0] | 1).collect();
    let mut writer = Writer::default();
    for size in sizes {
        writer = writer.file(&format!("f{size}"), &pattern[..size]);
    }
    let layer = good(writer);
    for size in sizes {
        assert_eq!(contents(&layer, &format!("f{size}")), &pattern[..size]);
    }
    for size in [4096, 65_536, 200_000] {
        let ino = find(&layer.0, &format!("f{size}")).unwrap();
        let Some(Content::Extents(extents)) = layer.0.content(ino) else { panic!("inline") };
        assert_eq!(extents.get(0).unwrap().data_offset % 4096, 0);
    }
}

#[test]
fn zeros_are_not_stored() {
    let mut holey = vec![0; 1 << 20];
    holey[0] = 1;
    holey[700_000] = 2;
    let layer = good(Writer::default().file("holey", &holey).file("zeros", &vec![0; 1 << 20]));
    assert!(layer.1.len() <= 2 * 65_536 + 4096);
    assert_eq!(contents(&layer, "holey"), holey);
    assert_eq!(contents(&layer, "zeros"), vec![0; 1 << 20]);
}

#[test]
fn a_sparse_file_costs_what_is_in_it() {
    let records: &[(&str, &[u8])] =
        &[("GNU.sparse.map", b"0,5,5000000000,5"), ("GNU.sparse.size", b"6000000000")];
    let (index, data) = good(Writer::default().pax(records).file("f", b"hellothere"));
    let ino = find(&index, "f").unwrap();
    assert_eq!(index.inode(ino).unwrap().size, 6_000_000_000);
    assert!(data.len() <= 3 * 65_536);
    let Some(Content::Extents(extents)) = index.content(ino) else { panic!("inline") };
    let last = extents.from(5_000_000_000).next().unwrap();
    let at = usize::try_from(last.data_offset + 5_000_000_000 - last.file_offset).unwrap();
    assert_eq!(&data[at..at + 5], b"there");
}

#[test]
fn names_may_be_written_in_several_ways() {
    let (index, _) = good(Writer::default().folder("./").file("./a/./b//c", b"x").folder("a/"));
    assert!(find(&index, "a/b/c").is_some());
    assert_eq!(index.entries(Ino::ROOT).count(), 1);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["/etc/passwd", "../x", "a/../../x", "a/..", ".."] {
        let message = refused(Writer::default().file(name, b""));
        assert!(message.contains(name), "{message}");
    }
    let long = format!("{}x", "d/".repeat(2048));
    let message = refused(Writer::default().pax(&[("path", long.as_bytes())]).file("x", b""));
    assert!(message.contains("4097 bytes"), "{message}");
    let long = "n".repeat(256);
    refused(Writer::default().pax(&[("path", long.as_bytes())]).file("x", b""));
}

#[test]
fn nothing_is_written_through_a_link_that_leads_out() {
    for target in ["/etc", "..", "../..", "a/../../..", "/"] {
        for entry in
            ["esc/x", "esc/.wh.x", "esc/.wh..wh..opq", "d/../esc/x"].iter().filter(|e| !e.contains(".."))
        {
            let message = refused(Writer::default().symlink("esc", target).file(entry, b""));
            assert!(message.contains("`esc`"), "{target} {message}");
        }
        refused(Writer::default().symlink("esc", target).folder("esc/d"));
        refused(Writer::default().symlink("esc", target).link("x", "esc/passwd"));
        refused(Writer::default().symlink("esc", target).symlink("two", "esc").file("two/x", b""));
    }
    refused(Writer::default().symlink("a", "b").symlink("b", "a").file("a/x", b""));
}

#[test]
fn a_link_within_the_tree_is_followed() {
    let writer = Writer::default()
        .folder("usr/")
        .folder("usr/bin")
        .symlink("bin", "usr/bin")
        .symlink("usr/up", "../bin");
    let (index, _) = good(writer.file("bin/a", b"").file("usr/up/b", b""));
    assert!(find(&index, "usr/bin/a").is_some());
    assert!(find(&index, "usr/bin/b").is_some());
}

#[test]
fn a_link_to_be_followed_later_is_not_followed_now() {
    let (index, _) = good(Writer::default().symlink("l", "/abs"));
    assert_eq!(index.link_target(find(&index, "l").unwrap()), Some(&b"/abs"[..]));
}

#[test]
fn hard_links_lead_to_files_of_the_tree() {
    let (index, _) = good(Writer::default().file("a", b"x").link("b", "a").link("c", "/a").link("d", "./b"));
    let a = find(&index, "a");
    assert!(["b", "c", "d"].iter().all(|name| find(&index, name) == a));
    assert_eq!(index.inode(a.unwrap()).unwrap().nlink, 4);
    for target in ["../a", "../../etc/passwd", "/../a", "", "/", "."] {
        let message = refused(Writer::default().file("a", b"").link("b", target));
        assert!(message.contains("out of the tree"), "{message}");
    }
    assert!(refused(Writer::default().folder("d").link("b", "d")).contains("to a folder"));
}

#[test]
fn whiteouts_name_something() {
    good(Writer::default().file(".wh.a", b"").file("d/.wh..wh..opq", b"").file(".wh..wh.plnk", b""));
    for name in [".wh.", ".wh..", ".wh...", ".wh.a/b"] {
        refused(Writer::default().file(name, b""));
    }
    refused(Writer::default().folder(".wh.a"));
}

#[test]
fn the_root_is_a_folder() {
    let (index, _) = good(Writer::default().folder("/"));
    assert_eq!(index.inode(Ino::ROOT).unwrap().mode, 0o644);
    for writer in [
        Writer::default().symlink("./", "x"),
        Writer::default().file(".", b""),
        Writer::default().link("/", "a"),
    ] {
        assert!(refused(writer).contains("root"));
    }
}

#[test]
fn a_file_is_no_folder() {
    assert!(refused(Writer::default().file("f", b"").file("f/g", b"")).contains("`f/g`"));
}

#[test]
fn devices_keep_their_numbers() {
    let device = |major: &[u8; 8], minor: &[u8; 8]| {
        let mut block = [0; 512];
        block[..3].copy_from_slice(b"dev");
        block[156] = b'3';
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[329..337].copy_from_slice(major);
        block[337..345].copy_from_slice(minor);
        Writer::default().block(block)
    };
    let (index, _) = good(device(b"0000001\0", b"0000003\0"));
    let inode = index.inode(find(&index, "dev").unwrap()).unwrap();
    assert_eq!((inode.kind, inode.rdev), (Kind::CharDevice, Device { major: 1, minor: 3 }));
    assert!(refused(device(b"0010000\0", b"0000003\0")).contains("out of range"));
    assert!(refused(device(b"0000001\0", b"4000000\0")).contains("out of range"));
}

#[test]
fn attributes_that_belong_to_the_packing_machine_are_dropped() {
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.security.selinux", b"x"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.capability", b"\x01\0"),
    ];
    let (index, _) = good(Writer::default().pax(records).folder("d"));
    let names: Vec<_> = index.xattrs(find(&index, "d").unwrap()).collect();
    assert_eq!(names, [(&b"security.capability"[..], &b"\x01\0"[..])]);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compression_is_told_by_content() {
    let plain = Writer::default().file("f", b"contents").end();
    let members = [gzip(&plain[..700]), gzip(&plain[700..])].concat();
    let zstd = zstd::encode_all(&plain[..], 3).unwrap();
    let frames =
        [zstd::encode_all(&plain[..700], 3).unwrap(), zstd::encode_all(&plain[700..], 3).unwrap()].concat();
    for bytes in [plain.clone(), gzip(&plain), members, zstd, frames] {
        let (result, _) = unpack(&bytes[..], Vec::new(), &Limits::default()).unwrap();
        assert_eq!(result.diff_id, Digest::of(&plain));
    }
}

#[test]
fn streams_cut_short_are_refused() {
    let plain = Writer::default().file("f", &[7; 3000]).end();
    for whole in [gzip(&plain), zstd::encode_all(&plain[..], 3).unwrap()] {
        for cut in 1..whole.len() {
            assert!(unpacked(&whole[..cut]).is_err(), "{cut} of {}", whole.len());
        }
    }
}

#[test]
fn a_layer_larger_than_allowed_is_refused() {
    let limits = Limits { layer_bytes: 1 << 20, ..Limits::default() };
    let many = (0..30).fold(Writer::default(), |w, n| w.file(&format!("f{n}"), &[0; 40_000])).end();
    for bytes in [gzip(&many), Writer::default().header(b'0', "f", "", 1 << 40).end()] {
        let error = unpack(&bytes[..], Vec::new(), &limits).unwrap_err();
        let cause = error.source().unwrap();
        assert!(format!("{cause} {:?}", cause.source()).contains("1048576 bytes allowed"), "{cause}");
    }
}

#[test]
fn a_bomb_is_refused_before_it_fills_the_disk() {
    #[derive(Debug)]
    struct Counting(u64);
    impl Write for Counting {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0 += buf.len() as u64;
            assert!(self.0 < 300 << 20, "too much was written");
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let size = 400 << 20;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let head = Writer::default().header(b'0', "f", "", size).end();
    encoder.write_all(&head[..512]).unwrap();
    io::copy(&mut io::repeat(b'A').take(size), &mut encoder).unwrap();
    let error = unpack(&encoder.finish().unwrap()[..], Counting(0), &Limits::default()).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("bomb"));
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab./]{1,8}", "(a|b|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq)(/(a|b|\\.\\.|\\.wh\\.b)){0,4}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_entries_give_a_sound_index_or_are_refused(entries in vec((0u8..5, name(), name()), 0..20)) {
        let mut writer = Writer::default();
        for (kind, name, target) in &entries {
            writer = match kind {
                0 => writer.folder(name),
                1 => writer.symlink(name, target),
                2 => writer.link(name, target),
                _ => writer.file(name, target.as_bytes()),
            };
        }
        // `unpacked` verifies the index.
        let _ = unpacked(&writer.end());
    }
}
