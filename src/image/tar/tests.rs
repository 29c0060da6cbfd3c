// SPDX-License-Identifier: Apache-2.0
use super::write::Writer;
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Every entry and its contents as they are in the archive.
fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut archive = Archive::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut contents = vec![0; usize::try_from(archive.left().min(1 << 20)).unwrap()];
        let n = archive.read(&mut contents)?;
        contents.truncate(n);
        entries.push((entry, contents));
    }
    archive.finish(4096)?;
    Ok(entries)
}

fn one(writer: Writer) -> Result<Entry, TarError> {
    read(&writer.end()).map(|mut entries| entries.remove(0).0)
}

fn time(seconds: i64, nanoseconds: u32) -> Time {
    Time { seconds, nanoseconds }
}

#[test]
fn what_the_block_says_is_read() {
    let entries = read(&Writer::default().file("a", b"contents").folder("d/").link("b", "a").end()).unwrap();
    let (file, contents) = &entries[0];
    assert_eq!(
        (&file.name[..], file.kind, file.size, &contents[..]),
        (&b"a"[..], Type::File, 8, &b"contents"[..])
    );
    assert_eq!((file.mode, file.uid, file.gid, file.mtime), (0o644, 1, 2, time(64, 0)));
    assert_eq!((entries[1].0.kind, entries[2].0.kind), (Type::Folder, Type::HardLink));
    assert_eq!(entries[2].0.link, b"a");
}

#[test]
fn what_pax_says_overrules_the_block() {
    let long = "n".repeat(300);
    let entry = one(Writer::default()
        .pax(&[
            ("path", long.as_bytes()),
            ("uid", b"4000000000"),
            ("gid", b"3000000"),
            ("mtime", b"-1.5"),
            ("size", b"3"),
            ("SCHILY.xattr.security.capability", b"\x01\0\n=\xff"),
            ("LIBARCHIVE.xattr.user.a%3Db", b"AQID"),
        ])
        .header(b'0', "short", "", 0)
        .raw(b"abc"))
    .unwrap();
    assert_eq!(entry.name, long.as_bytes());
    assert_eq!((entry.uid, entry.gid, entry.size), (4_000_000_000, 3_000_000, 3));
    assert_eq!(entry.mtime, time(-2, 500_000_000));
    assert_eq!(entry.xattrs[&b"security.capability"[..]], b"\x01\0\n=\xff");
    assert_eq!(entry.xattrs[&b"user.a=b"[..]], [1, 2, 3]);
}

#[test]
fn times_keep_their_nanoseconds() {
    for (text, want) in [
        ("1700000000", time(1_700_000_000, 0)),
        ("1700000000.1", time(1_700_000_000, 100_000_000)),
        ("1.1234567899", time(1, 123_456_789)),
        ("-3", time(-3, 0)),
        ("-0.000000001", time(-1, 999_999_999)),
        ("5.", time(5, 0)),
    ] {
        let entry = one(Writer::default().pax(&[("mtime", text.as_bytes())]).file("f", b"")).unwrap();
        assert_eq!(entry.mtime, want, "{text}");
    }
    for bad in ["1e9", "x", "1.x", "--1", "99999999999999999999"] {
        assert!(one(Writer::default().pax(&[("mtime", bad.as_bytes())]).file("f", b"")).is_err(), "{bad}");
    }
}

#[test]
fn gnu_long_names_are_read() {
    let long = [b"l".repeat(200), b"\0".to_vec()].concat();
    let entry = one(Writer::default()
        .header(b'L', "././@LongLink", "", 201)
        .raw(&long)
        .header(b'K', "././@LongLink", "", 201)
        .raw(&long)
        .symlink("short", "t"))
    .unwrap();
    assert_eq!((&entry.name, &entry.link), (&long[..200].to_vec(), &long[..200].to_vec()));
}

#[test]
fn large_numbers_in_base_256_are_read() {
    let mut block = [0; 512];
    block[0] = b'f';
    block[156] = b'2';
    block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    block[136..148].copy_from_slice(&[0xff; 12]);
    let entry = one(Writer::default().block(block)).unwrap();
    assert_eq!((entry.uid, entry.mtime), (u32::MAX, time(-1, 0)));
}

#[test]
fn all_kinds_of_sparse_files_are_understood() {
    let pieces = Some(vec![(0, 5), (1000, 5)]);
    let v00: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"2000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"0"),
        ("GNU.sparse.numbytes", b"5"),
        ("GNU.sparse.offset", b"1000"),
        ("GNU.sparse.numbytes", b"5"),
    ];
    let v01: &[(&str, &[u8])] = &[("GNU.sparse.map", b"0,5,1000,5,2000,0"), ("GNU.sparse.size", b"2000")];
    for records in [v00, v01] {
        let entries = read(&Writer::default().pax(records).file("f", b"hellothere").end()).unwrap();
        assert_eq!((&entries[0].0.pieces, entries[0].0.size), (&pieces, 2000));
        assert_eq!(entries[0].1, b"hellothere");
    }
    let v10: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"real"),
        ("GNU.sparse.realsize", b"2000"),
    ];
    let mut contents = b"2\n0\n5\n1000\n5\n".to_vec();
    contents.resize(512, 0);
    contents.extend_from_slice(b"hellothere");
    let entries = read(&Writer::default().pax(v10).file("GNUSparseFile.0/f", &contents).end()).unwrap();
    assert_eq!(
        (&entries[0].0.pieces, &entries[0].0.name[..], entries[0].0.size),
        (&pieces, &b"real"[..], 2000)
    );
    assert_eq!(entries[0].1, b"hellothere");
}

#[test]
fn a_sparse_map_that_cannot_be_is_refused() {
    for map in ["0,5,3,5", "0,5,1996,5", "0,5", "0,5,1000", "0,20", "x", "0,5,1000,4611686018427387904"] {
        let records: &[(&str, &[u8])] = &[("GNU.sparse.map", map.as_bytes()), ("GNU.sparse.size", b"2000")];
        assert!(one(Writer::default().pax(records).file("f", b"hellothere")).is_err(), "{map}");
    }
}

#[test]
fn an_entry_that_only_claims_contents_has_none() {
    let bytes = Writer::default().header(b'5', "d", "", 1000).file("f", b"x").end();
    assert_eq!(read(&bytes).unwrap().len(), 2);
}

#[test]
fn malformed_archives_are_refused() {
    let good = Writer::default().file("f", b"contents");
    let mut checksum = good.clone().end();
    checksum[0] = b'g';
    assert!(matches!(read(&checksum), Err(TarError::Checksum)));
    let whole = good.clone().end();
    assert!(matches!(read(&whole[..700]), Err(TarError::Truncated)));
    assert!(matches!(read(&whole[..100]), Err(TarError::Truncated)));
    assert!(matches!(read(&[whole.clone(), b"x".to_vec()].concat()), Err(TarError::Trailer(_))));
    assert!(matches!(read(&[whole, vec![0; 5000]].concat()), Err(TarError::Trailer(_))));
    let large = Writer::default().header(b'x', "P", "", 1 << 30).end();
    assert!(matches!(read(&large), Err(TarError::HeaderTooLarge(_))));
    let dangling = Writer::default().pax(&[("path", b"x")]).end();
    assert!(matches!(read(&dangling), Err(TarError::Truncated)));
    for nul in ["path", "linkpath"] {
        let bytes = Writer::default().pax(&[(nul, b"a\0b")]).symlink("f", "t");
        assert!(matches!(one(bytes), Err(TarError::NulInName)));
    }
    assert!(matches!(one(Writer::default().header(b'V', "v", "", 0)), Err(TarError::Type(b'V'))));
}

#[test]
fn an_archive_may_end_without_its_two_blocks() {
    let bytes = Writer::default().file("f", b"").end();
    assert_eq!(read(&bytes[..512]).unwrap().len(), 1);
    assert_eq!(read(&bytes[..1024]).unwrap().len(), 1);
    assert_eq!(read(b"").unwrap().len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(
        flips in vec((0usize..6000, any::<u8>()), 0..20),
        records in vec(("[a-zA-Z.]{1,20}", vec(any::<u8>(), 0..40)), 0..4),
        cut in 0usize..8000,
    ) {
        let records: Vec<_> = records.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
        let sparse: &[(&str, &[u8])] = &[("GNU.sparse.map", b"0,5,1000,5"), ("GNU.sparse.size", b"2000")];
        let mut bytes = Writer::default()
            .pax(&records)
            .file("a", b"contents")
            .pax(sparse)
            .file("b", b"hellothere")
            .symlink("c", "a")
            .end();
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        let _ = read(&bytes);
    }
}
