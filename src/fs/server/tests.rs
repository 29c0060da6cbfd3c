// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::abi::{Take, opcode};
use crate::index::IndexServer;
use isopod_index::format::Use;
use isopod_index::{Attributes as Made, Body as Contents, Device, Extent, Index, Time, Tree};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

mod attacks;

/// A reply with a room, which panics where a server writes outside it.
struct Page(Vec<u8>);

impl Reply for Page {
    fn room(&self) -> usize {
        self.0.len()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn zero(&mut self, at: usize, len: usize) {
        self.0[at..at + len].fill(0);
    }

    fn fill(&mut self, at: usize, len: usize, file: &File, offset: u64) -> io::Result<usize> {
        file.read_at(&mut self.0[at..at + len], offset)
    }
}

/// What came back.
#[derive(Debug, PartialEq)]
enum Answer {
    Silence,
    Error(Errno),
    Body(Vec<u8>),
}

impl Answer {
    fn body(self) -> Vec<u8> {
        match self {
            Self::Body(body) => body,
            other => panic!("{other:?}"),
        }
    }
}

const UNIQUE: u64 = 0x1234_5678_9abc_def0;

fn message(code: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(IN_HEADER + body.len()).unwrap();
    let header = Put::<IN_HEADER>::new().u32(len).u32(code).u64(UNIQUE).u64(node).pad(IN_HEADER);
    [header.as_bytes(), body].concat()
}

const IN_HEADER: usize = abi::IN_HEADER_LEN;

fn send_raw(server: &mut Server, request: &[u8], room: usize) -> Answer {
    let mut page = Page(vec![0xee; room]);
    let len = server.handle(request, &mut page);
    assert!(len <= room);
    if len == 0 {
        assert!(page.0.iter().all(|byte| *byte == 0xee), "silence, but something was written");
        return Answer::Silence;
    }
    let mut take = Take(&page.0);
    let (said, error, unique) = (take.u32().unwrap(), take.u32().unwrap().cast_signed(), take.u64().unwrap());
    assert_eq!(usize::try_from(said).unwrap(), len);
    assert_eq!(unique, u64::from_le_bytes(request[8..16].try_into().unwrap()));
    if error == 0 {
        return Answer::Body(page.0[OUT_HEADER_LEN..len].to_vec());
    }
    assert_eq!(len, OUT_HEADER_LEN);
    Answer::Error(Errno::from_raw_os_error(-error))
}

fn send(server: &mut Server, code: u32, node: u64, body: &[u8]) -> Answer {
    send_raw(server, &message(code, node, body), 8192)
}

fn made(mode: u16) -> Made {
    let mtime = Time { seconds: -5, nanoseconds: 999 };
    Made { mode, uid: 1000, gid: 2000, mtime, xattrs: BTreeMap::new() }
}

const HOLE: u64 = 5 << 30;

/// ```text
///   /big    two extents of 6000 bytes with a hole before, between and behind, in two data files
///   /bin/   0755
///   /dev    c 5:1
///   /empty
///   /hello  inline, hard-linked as /bin/again
///   /link   → bin/again
/// ```
fn image() -> Vec<u8> {
    let mut tree = Tree::new(Use::Image, 1 << 20);
    let root = Tree::ROOT;
    let extent = |file_offset, layer, data_offset| Extent { file_offset, len: 6000, layer, data_offset };
    let extents = [extent(4096, 0, 8192), extent(HOLE, 1, 0)];
    let big = Contents::File { size: HOLE + 10_000, extents: &extents };
    let dev = Contents::CharDevice(Device { major: 5, minor: 1 });
    let xattrs =
        BTreeMap::from([(b"user.a".to_vec(), b"12345".to_vec()), (b"user.b/c".to_vec(), Vec::new())]);
    tree.describe_root(&made(0o755)).unwrap();
    tree.put(root, b"big", &made(0o4755), big).unwrap();
    let bin = tree.put(root, b"bin", &made(0o755), Contents::Folder).unwrap();
    tree.put(root, b"dev", &made(0o600), dev).unwrap();
    tree.put(root, b"empty", &made(0o644), Contents::Inline(b"")).unwrap();
    let with_xattrs = Made { xattrs, ..made(0o644) };
    let hello = tree.put(root, b"hello", &with_xattrs, Contents::Inline(b"hello, guest")).unwrap();
    tree.link(bin, b"again", hello).unwrap();
    tree.put(root, b"link", &made(0o777), Contents::Symlink(b"bin/again")).unwrap();
    let mut bytes = Vec::new();
    tree.write(&mut bytes).unwrap();
    bytes
}

fn data(byte: u8, len: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![byte; len]).unwrap();
    file
}

fn fresh() -> Server {
    let index = Index::open(image()).unwrap();
    Server::new(IndexServer::new(index, vec![data(b'a', 20_000), data(b'b', 5000)]))
}

const INIT_IN: [u32; 4] = [7, 41, 1 << 17, u32::MAX];

fn init_body(words: [u32; 4]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).chain([0; 48]).collect()
}

fn ready() -> Server {
    let mut server = fresh();
    send(&mut server, opcode::INIT, 0, &init_body(INIT_IN)).body();
    server
}

fn lookup(server: &mut Server, parent: u64, name: &str) -> Answer {
    send(server, opcode::LOOKUP, parent, &[name.as_bytes(), b"\0"].concat())
}

fn node(server: &mut Server, parent: u64, name: &str) -> u64 {
    Take(&lookup(server, parent, name).body()).u64().unwrap()
}

fn words(body: &[u8]) -> Vec<u64> {
    body.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

fn halves(body: &[u8]) -> Vec<u32> {
    body.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn read_body(offset: u64, size: u32) -> Vec<u8> {
    Put::<40>::new().u64(0).u64(offset).u32(size).pad(40).as_bytes().to_vec()
}

fn read(server: &mut Server, node: u64, offset: u64, size: u32) -> Answer {
    send(server, opcode::READ, node, &read_body(offset, size))
}

#[test]
fn init_agrees_on_what_both_have() {
    let body =
        send(&mut fresh(), opcode::INIT, 0, &init_body([7, 41, 1 << 17, init::MAX_PAGES | 1 << 16])).body();
    assert_eq!(body.len(), 64);
    let halves = halves(&body);
    assert_eq!(halves[..4], [7, 38, 1 << 16, init::MAX_PAGES], "half of what it would read ahead");
    assert_eq!(halves[7], 256, "pages");
}

#[test]
fn a_kernel_of_a_later_protocol_is_told_ours_and_asked_to_try_again() {
    let mut server = fresh();
    let body = send(&mut server, opcode::INIT, 0, &init_body([8, 0, 0, 0])).body();
    assert_eq!(halves(&body)[..2], [7, 38]);
    assert_eq!(send(&mut server, opcode::GETATTR, 1, &[0; 16]), Answer::Error(Errno::IO));
}

#[test]
fn a_kernel_of_an_earlier_protocol_is_refused() {
    for version in [[6, 99, 0, 0], [7, 22, 0, 0]] {
        assert_eq!(send(&mut fresh(), opcode::INIT, 0, &init_body(version)), Answer::Error(Errno::PROTO));
    }
}

#[test]
fn nothing_is_answered_before_init_or_after_destroy() {
    let mut server = ready();
    assert_eq!(send(&mut server, opcode::DESTROY, 0, &[]), Answer::Body(Vec::new()));
    for code in (0..70).chain([4096, u32::MAX]).filter(|code| *code != opcode::INIT) {
        let expected = if [opcode::FORGET, opcode::BATCH_FORGET, opcode::INTERRUPT].contains(&code) {
            Answer::Silence
        } else {
            Answer::Error(Errno::IO)
        };
        assert_eq!(send(&mut server, code, 1, b"\x01\0\0\0x\0"), expected, "opcode {code}");
        assert_eq!(send(&mut fresh(), code, 1, &read_body(0, 10)), expected, "opcode {code}");
    }
}

#[test]
fn a_second_init_negotiates_again() {
    let mut server = ready();
    assert_eq!(send(&mut server, opcode::OPEN, 1, &[0; 8]), Answer::Error(Errno::NOSYS));
    send(&mut server, opcode::INIT, 0, &init_body([7, 31, 0, 0])).body();
    assert_eq!(send(&mut server, opcode::OPEN, 1, &[0; 8]).body().len(), 16);
}

#[test]
fn a_session_goes_on_with_another_server() {
    let first = ready();
    let mut second = fresh();
    second.resume(first.session()).unwrap();
    assert_eq!(second.session(), first.session());
    assert!(matches!(lookup(&mut second, 1, "hello"), Answer::Body(_)));
    second.resume(fresh().session()).unwrap();
    assert_eq!(lookup(&mut second, 1, "hello"), Answer::Error(Errno::IO));
}

#[test]
fn a_session_with_flags_that_are_never_agreed_on_does_not_go_on() {
    let mut server = fresh();
    assert_eq!(server.resume(Some(WANTED | 1 << 31)), Err(1 << 31));
    assert_eq!(server.session(), None);
}

#[test]
fn look_ups_give_all_there_is_to_know_for_ever() {
    let mut server = ready();
    let body = lookup(&mut server, 1, "hello").body();
    assert_eq!(body.len(), ENTRY_LEN);
    let head = words(&body[..40]);
    assert_eq!(head[1..], [0, abi::FOREVER, abi::FOREVER, 0]);
    let attr = words(&body[40..88]);
    assert_eq!(attr, [head[0], 12, 1, u64::MAX - 4, u64::MAX - 4, u64::MAX - 4]);
    assert_eq!(halves(&body[88..]), [999, 999, 999, 0o100_644, 2, 1000, 2000, 0, 4096, 0]);
}

#[test]
fn a_hard_link_is_the_same_node() {
    let mut server = ready();
    let bin = node(&mut server, 1, "bin");
    assert_eq!(node(&mut server, bin, "again"), node(&mut server, 1, "hello"));
}

#[test]
fn a_device_keeps_its_number_and_a_program_its_setuid_bit() {
    let mut server = ready();
    let dev = lookup(&mut server, 1, "dev").body();
    assert_eq!(halves(&dev[88..])[7], 5 << 8 | 1);
    let big = lookup(&mut server, 1, "big").body();
    assert_eq!(halves(&big[88..])[3], 0o104_755);
}

#[test]
fn the_absence_of_a_name_is_good_for_ever() {
    let body = lookup(&mut ready(), 1, "missing").body();
    assert_eq!(words(&body[..32]), [0, 0, abi::FOREVER, abi::FOREVER]);
    assert!(body[40..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_name_is_looked_up_in_folders_only() {
    let mut server = ready();
    let hello = node(&mut server, 1, "hello");
    assert_eq!(lookup(&mut server, hello, "x"), Answer::Error(Errno::NOTDIR));
}

/// Every request that names a node, and every one that takes a name.
#[test]
fn nodes_that_are_nothing_are_stale() {
    let mut server = ready();
    let requests: [(u32, Vec<u8>); 10] = [
        (opcode::LOOKUP, b"x\0".to_vec()),
        (opcode::GETATTR, vec![0; 16]),
        (opcode::READLINK, vec![]),
        (opcode::READ, read_body(0, 100)),
        (opcode::READDIR, read_body(0, 100)),
        (opcode::READDIRPLUS, read_body(0, 100)),
        (opcode::LSEEK, Put::<24>::new().u64(0).u64(0).u32(3).pad(24).as_bytes().to_vec()),
        (opcode::GETXATTR, b"\0\0\0\0\0\0\0\0x\0".to_vec()),
        (opcode::LISTXATTR, vec![0; 8]),
        (opcode::GETATTR, vec![]),
    ];
    for (code, body) in &requests {
        for node in [0, 9, 1000, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, u64::MAX] {
            assert_eq!(
                send(&mut server, *code, node, body),
                Answer::Error(Errno::STALE),
                "opcode {code} node {node}"
            );
        }
    }
}

fn names() -> Vec<Vec<u8>> {
    let long = |n| [vec![b'n'; n], vec![0]].concat();
    let listed = [
        &b"..\0"[..],
        b".\0",
        b"../x\0",
        b"/etc/x\0",
        b"a/b\0",
        b"/\0",
        b"//\0",
        b"\0",
        b"",
        b"x",
        b"x\0y",
        b"x\0y\0",
        b"\0\0",
        b"x\0\0",
        b"../../../etc/passwd\0",
        b"./x\0",
        b"x/..\0",
        b"x/\0",
        b"\xff/\0",
        b"..",
    ];
    listed
        .iter()
        .map(|name| name.to_vec())
        .chain([long(256), long(4096), vec![b'n'; 255], vec![0; 300]])
        .collect()
}

#[test]
fn a_name_that_is_not_one_name_is_refused() {
    let mut server = ready();
    for name in names() {
        let long = name.len() > 256 && name.iter().filter(|byte| **byte == 0).count() == 1;
        let expected = Answer::Error(if long { Errno::NAMETOOLONG } else { Errno::INVAL });
        assert_eq!(send(&mut server, opcode::LOOKUP, 1, &name), expected, "{name:?}");
    }
    for good in [&b"\xff\xfe\0"[..], b" \0", b"...\0", b"..x\0", &[&[b'n'; 255][..], b"\0"].concat()] {
        assert_eq!(send(&mut server, opcode::LOOKUP, 1, good).body().len(), ENTRY_LEN);
    }
}

const CHANGING: [u32; 16] = [
    opcode::SETATTR,
    opcode::SYMLINK,
    opcode::MKNOD,
    opcode::MKDIR,
    opcode::UNLINK,
    opcode::RMDIR,
    opcode::RENAME,
    opcode::RENAME2,
    opcode::LINK,
    opcode::WRITE,
    opcode::SETXATTR,
    opcode::REMOVEXATTR,
    opcode::CREATE,
    opcode::TMPFILE,
    opcode::FALLOCATE,
    opcode::COPY_FILE_RANGE,
];

#[test]
fn whatever_would_change_something_is_refused_whatever_it_names() {
    let mut server = ready();
    for code in CHANGING {
        for name in names() {
            for fixed in [0, 8, 16, 40, 88] {
                let body = [vec![0; fixed], name.clone()].concat();
                let answer = send(&mut server, code, 1, &body);
                assert_eq!(answer, Answer::Error(Errno::ROFS), "opcode {code} {name:?}");
            }
        }
    }
}

#[test]
fn opening_for_writing_is_refused() {
    let mut server = fresh();
    send(&mut server, opcode::INIT, 0, &init_body([7, 31, 0, 0])).body();
    for flags in [1u32, 2, 3, 0o1000, 0o1001] {
        let body = [flags.to_le_bytes(), [0; 4]].concat();
        assert_eq!(send(&mut server, opcode::OPEN, 1, &body), Answer::Error(Errno::ROFS));
    }
    assert_eq!(halves(&send(&mut server, opcode::OPEN, 1, &[0; 8]).body()), [0, 0, 2, 0]);
    assert_eq!(halves(&send(&mut server, opcode::OPENDIR, 1, &[0; 8]).body()), [0, 0, 10, 0]);
}

#[test]
fn what_is_not_served_is_not_known() {
    let mut server = ready();
    let served = [1, 2, 3, 5, 14, 15, 17, 18, 22, 23, 25, 26, 27, 28, 29, 36, 38, 42, 44, 46];
    for code in (0..64).chain([4096, 1 << 20, u32::MAX]) {
        if !served.contains(&code) && !CHANGING.contains(&code) {
            let answer = send(&mut server, code, 1, &[0; 64]);
            assert_eq!(answer, Answer::Error(Errno::NOSYS), "opcode {code}");
        }
    }
    assert_eq!(send(&mut server, opcode::FLUSH, 1, &[0; 24]), Answer::Error(Errno::NOSYS));
    assert_eq!(send(&mut server, opcode::RELEASE, 1, &[0; 24]), Answer::Body(vec![]));
}

#[test]
fn readdirplus_that_was_not_negotiated_is_not_known() {
    let mut server = fresh();
    send(&mut server, opcode::INIT, 0, &init_body([7, 31, 0, 0])).body();
    assert_eq!(send(&mut server, opcode::READDIRPLUS, 1, &read_body(0, 4096)), Answer::Error(Errno::NOSYS));
}

#[test]
fn a_link_is_text_and_only_a_link_has_it() {
    let mut server = ready();
    let link = node(&mut server, 1, "link");
    assert_eq!(send(&mut server, opcode::READLINK, link, &[]).body(), b"bin/again");
    assert_eq!(send(&mut server, opcode::READLINK, 1, &[]), Answer::Error(Errno::INVAL));
}

#[test]
fn small_files_are_read_from_the_index() {
    let mut server = ready();
    let hello = node(&mut server, 1, "hello");
    assert_eq!(read(&mut server, hello, 0, 4096).body(), b"hello, guest");
    assert_eq!(read(&mut server, hello, 7, 3).body(), b"gue");
    assert_eq!(read(&mut server, hello, 12, 100).body(), b"");
    assert_eq!(read(&mut server, hello, u64::MAX, u32::MAX).body(), b"");
    let empty = node(&mut server, 1, "empty");
    assert_eq!(read(&mut server, empty, 0, 4096).body(), b"");
}

#[test]
fn extents_are_read_with_zeros_where_there_are_none() {
    let mut server = ready();
    let big = node(&mut server, 1, "big");
    let around_start = read(&mut server, big, 4000, 200).body();
    assert_eq!(around_start, [vec![0; 96], vec![b'a'; 104]].concat());
    let around_end = read(&mut server, big, 10_000, 200).body();
    assert_eq!(around_end, [vec![b'a'; 96], vec![0; 104]].concat());
    assert_eq!(read(&mut server, big, 1 << 31, 4096).body(), vec![0; 4096]);
    let across = read(&mut server, big, HOLE - 10, 20).body();
    assert_eq!(across, [vec![0; 10], vec![b'b'; 10]].concat());
    assert_eq!(read(&mut server, big, HOLE + 9990, 4096).body(), vec![0; 10]);
}

#[test]
fn a_data_file_that_is_too_short_is_an_io_error() {
    let mut server = ready();
    let big = node(&mut server, 1, "big");
    assert_eq!(read(&mut server, big, HOLE + 4990, 10).body(), vec![b'b'; 10]);
    assert_eq!(read(&mut server, big, HOLE + 4990, 11), Answer::Error(Errno::IO));
}

#[test]
fn a_layer_that_is_not_there_is_an_io_error() {
    let index = Index::open(image()).unwrap();
    let mut server = Server::new(IndexServer::new(index, vec![data(b'a', 20_000)]));
    send(&mut server, opcode::INIT, 0, &init_body(INIT_IN)).body();
    let big = node(&mut server, 1, "big");
    assert_eq!(read(&mut server, big, HOLE, 10), Answer::Error(Errno::IO));
}

#[test]
fn a_read_is_cut_to_the_room_there_is() {
    let mut server = ready();
    let big = node(&mut server, 1, "big");
    let request = message(opcode::READ, big, &read_body(4096, u32::MAX));
    assert_eq!(send_raw(&mut server, &request, 16 + 33), Answer::Body(vec![b'a'; 33]));
}

/// One that asks for more than was agreed on has room for it over and over in the same pages of its memory.
#[test]
fn a_read_of_gigabytes_gets_no_more_than_was_agreed_on() {
    let mut server = ready();
    let big = node(&mut server, 1, "big");
    let request = message(opcode::READ, big, &read_body(0, u32::MAX));
    assert_eq!(send_raw(&mut server, &request, 8 << 20).body().len(), 1 << 20);
}

#[test]
fn only_files_are_read() {
    let mut server = ready();
    assert_eq!(read(&mut server, 1, 0, 10), Answer::Error(Errno::ISDIR));
    let dev = node(&mut server, 1, "dev");
    assert_eq!(read(&mut server, dev, 0, 10), Answer::Error(Errno::INVAL));
}

/// Names with their nodes, types and offsets, and whether attributes came with them.
fn list(body: &[u8], plus: bool) -> Vec<(String, u64, u32, u64, bool)> {
    let (mut rest, mut listed) = (body, Vec::new());
    while !rest.is_empty() {
        let entry = if plus { rest.split_off(..ENTRY_LEN).unwrap() } else { &[0; 8] };
        let mut take = Take(rest);
        let (node, offset) = (take.u64().unwrap(), take.u64().unwrap());
        let (len, kind) = (take.u32().unwrap() as usize, take.u32().unwrap());
        let name = String::from_utf8(take.0[..len].to_vec()).unwrap();
        rest = &rest[(DIRENT_LEN + len).next_multiple_of(8)..];
        listed.push((name, node, kind, offset, Take(entry).u64() == Some(node)));
    }
    listed
}

#[test]
fn a_listing_begins_with_the_folder_and_its_parent() {
    let mut server = ready();
    let bin = node(&mut server, 1, "bin");
    let body = send(&mut server, opcode::READDIR, bin, &read_body(0, 4096)).body();
    let hello = node(&mut server, 1, "hello");
    let expected = [
        (".".to_owned(), bin, 4, 1, false),
        ("..".to_owned(), 1, 4, 2, false),
        ("again".to_owned(), hello, 8, 3, false),
    ];
    assert_eq!(list(&body, false), expected);
}

#[test]
fn a_listing_can_be_taken_in_pieces_of_any_size() {
    for (code, plus) in [(opcode::READDIR, false), (opcode::READDIRPLUS, true)] {
        let mut server = ready();
        let whole = list(&send(&mut server, code, 1, &read_body(0, 8000)).body(), plus);
        let names: Vec<_> = whole.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(names, [".", "..", "big", "bin", "dev", "empty", "hello", "link"]);
        for size in [160, 200, 333, 1000] {
            let (mut pieces, mut offset) = (Vec::new(), 0);
            loop {
                let piece = list(&send(&mut server, code, 1, &read_body(offset, size)).body(), plus);
                let Some(last) = piece.last() else { break };
                offset = last.3;
                pieces.extend(piece);
            }
            assert_eq!(pieces, whole);
        }
    }
}

#[test]
fn a_listing_with_attributes_has_them_for_all_but_the_dots() {
    let mut server = ready();
    let body = send(&mut server, opcode::READDIRPLUS, 1, &read_body(0, 8000)).body();
    let has: Vec<_> = list(&body, true).iter().map(|entry| entry.4).collect();
    assert_eq!(has, [false, false, true, true, true, true, true, true]);
    let first = &body[2 * (ENTRY_LEN + 32)..][..ENTRY_LEN];
    assert_eq!(first, lookup(&mut server, 1, "big").body());
}

#[test]
fn a_listing_from_behind_the_end_is_empty_and_one_without_room_an_error() {
    let mut server = ready();
    for offset in [8, 9, 1 << 32, u64::MAX] {
        assert_eq!(send(&mut server, opcode::READDIR, 1, &read_body(offset, 4096)).body(), b"");
    }
    assert_eq!(send(&mut server, opcode::READDIR, 1, &read_body(0, 31)), Answer::Error(Errno::INVAL));
    let hello = node(&mut server, 1, "hello");
    assert_eq!(send(&mut server, opcode::READDIR, hello, &read_body(0, 99)), Answer::Error(Errno::NOTDIR));
}

fn get_xattr(server: &mut Server, node: u64, name: &[u8], size: u32) -> Answer {
    let body = [&size.to_le_bytes()[..], &[0; 4], name, b"\0"].concat();
    send(server, opcode::GETXATTR, node, &body)
}

#[test]
fn an_attribute_tells_its_size_to_who_asks_for_none_of_it() {
    let mut server = ready();
    let hello = node(&mut server, 1, "hello");
    assert_eq!(halves(&get_xattr(&mut server, hello, b"user.a", 0).body()), [5, 0]);
    assert_eq!(get_xattr(&mut server, hello, b"user.a", 4), Answer::Error(Errno::RANGE));
    assert_eq!(get_xattr(&mut server, hello, b"user.a", 5).body(), b"12345");
    assert_eq!(get_xattr(&mut server, hello, b"user.b/c", 100).body(), b"");
    assert_eq!(get_xattr(&mut server, hello, b"user.c", 100), Answer::Error(Errno::NODATA));
    assert_eq!(get_xattr(&mut server, hello, b"", 100), Answer::Error(Errno::INVAL));
}

#[test]
fn an_image_without_attributes_does_not_want_to_be_asked_for_any() {
    let mut bytes = Vec::new();
    Tree::new(Use::Image, 1 << 20).write(&mut bytes).unwrap();
    let mut server = Server::new(IndexServer::new(Index::open(bytes).unwrap(), Vec::new()));
    send(&mut server, opcode::INIT, 0, &init_body(INIT_IN)).body();
    assert_eq!(get_xattr(&mut server, 1, b"user.a", 100), Answer::Error(Errno::NOSYS));
}

#[test]
fn the_list_of_attributes_is_sized_the_same_way() {
    let mut server = ready();
    let hello = node(&mut server, 1, "hello");
    let mut list =
        |node, size: u32| send(&mut server, opcode::LISTXATTR, node, &[size.to_le_bytes(), [0; 4]].concat());
    assert_eq!(halves(&list(hello, 0).body()), [16, 0]);
    assert_eq!(list(hello, 15), Answer::Error(Errno::RANGE));
    assert_eq!(list(hello, 16).body(), b"user.a\0user.b/c\0");
    assert_eq!(list(1, 100).body(), b"");
}

#[test]
fn statfs_counts_the_image_and_has_nothing_free() {
    let body = send(&mut ready(), opcode::STATFS, 1, &[]).body();
    assert_eq!(body.len(), 80);
    let head = words(&body[..40]);
    assert_eq!(head[1..], [0, 0, 7, 0]);
    assert_eq!(head[0], (HOLE + 10_000 + 12).div_ceil(4096));
    assert_eq!(halves(&body[40..])[..3], [4096, 255, 4096]);
}

#[test]
fn seeking_finds_data_and_holes() {
    let mut server = ready();
    let big = node(&mut server, 1, "big");
    let mut seek = |node, offset, whence: u32| {
        let body = Put::<24>::new().u64(0).u64(offset).u32(whence).pad(24);
        match send(&mut server, opcode::LSEEK, node, body.as_bytes()) {
            Answer::Body(body) => Ok(words(&body)[0]),
            Answer::Error(errno) => Err(errno),
            Answer::Silence => panic!(),
        }
    };
    assert_eq!(seek(big, 0, 3), Ok(4096));
    assert_eq!(seek(big, 5000, 3), Ok(5000));
    assert_eq!(seek(big, 0, 4), Ok(0));
    assert_eq!(seek(big, 5000, 4), Ok(10_096));
    assert_eq!(seek(big, 10_096, 3), Ok(HOLE));
    assert_eq!(seek(big, HOLE + 6000, 3), Err(Errno::NXIO));
    assert_eq!(seek(big, HOLE + 10_000, 4), Err(Errno::NXIO));
    assert_eq!(seek(big, 0, 0), Err(Errno::INVAL));
    assert_eq!(seek(1, 0, 3), Err(Errno::ISDIR));
}

#[test]
fn a_length_that_is_a_lie_is_refused() {
    let mut server = ready();
    let mut request = message(opcode::GETATTR, 1, &[0; 16]);
    for len in [0u32, 39, 40, 55, 57, u32::MAX] {
        request[..4].copy_from_slice(&len.to_le_bytes());
        assert_eq!(send_raw(&mut server, &request, 4096), Answer::Error(Errno::INVAL));
    }
}

#[test]
fn a_request_without_a_whole_header_gets_no_answer() {
    let request = message(opcode::GETATTR, 1, &[]);
    for len in 0..IN_HEADER {
        assert_eq!(send_raw(&mut ready(), &request[..len], 4096), Answer::Silence);
    }
}

#[test]
fn rooms_of_every_size_get_an_error_an_answer_or_silence() {
    let mut server = ready();
    for code in 1..64 {
        for room in (0..=200).chain([4096]) {
            let answer = send_raw(&mut server, &message(code, 1, &read_body(0, 4096)), room);
            assert_eq!(answer == Answer::Silence, room < 16 || [2, 36, 42].contains(&code), "opcode {code}");
            if code == opcode::DESTROY && room >= 16 {
                server = ready();
            }
        }
    }
}

#[test]
fn what_was_asked_is_counted() {
    let mut server = ready();
    let hello = node(&mut server, 1, "hello");
    read(&mut server, hello, 0, 4096).body();
    send(&mut server, 9999, 1, &[]);
    let snapshot = server.counters().snapshot();
    assert_eq!(snapshot.requests, [(0, 1), (1, 1), (15, 1), (26, 1)]);
    assert_eq!((snapshot.errors, snapshot.bytes), (1, 12));
}

proptest! {
    #[test]
    fn no_bytes_at_all_make_it_panic_or_answer_wrongly(
        request in prop::collection::vec(any::<u8>(), 0..300),
        room in 0usize..5000,
    ) {
        send_raw(&mut ready(), &request, room);
    }

    #[test]
    fn nor_do_requests_that_are_nearly_right(
        requests in prop::collection::vec(
            (0u32..55, 0u64..12, any::<[u64; 3]>(), prop::collection::vec(any::<u8>(), 0..80), 0usize..5000),
            1..20,
        ),
    ) {
        let mut server = ready();
        for (code, node, [a, b, c], tail, room) in requests {
            let fields = [a & 3, b & 0xffff, c & 0xffff].map(u64::to_le_bytes).concat();
            send_raw(&mut server, &message(code, node, &[fields, tail].concat()), room);
        }
    }

    #[test]
    fn nor_does_an_index_that_is_broken(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        node in 0u64..10,
        offset in prop_oneof![0u64..5000, HOLE - 3..HOLE + 20_000, any::<u64>()],
    ) {
        let mut bytes = image();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let Ok(index) = Index::open(bytes) else { return Ok(()) };
        let mut server = Server::new(IndexServer::new(index, vec![data(b'a', 9000)]));
        send(&mut server, opcode::INIT, 0, &init_body(INIT_IN)).body();
        for code in [opcode::GETATTR, opcode::READLINK, opcode::STATFS] {
            send(&mut server, code, node, &[]);
        }
        for code in [opcode::READ, opcode::READDIR, opcode::READDIRPLUS] {
            send(&mut server, code, node, &read_body(offset, 4096));
            send(&mut server, code, node, &read_body(0, 4096));
        }
        lookup(&mut server, node, "hello");
        get_xattr(&mut server, node, b"user.a", 100);
        for whence in [3, 4] {
            let body = Put::<24>::new().u64(0).u64(offset).u32(whence).pad(24);
            send(&mut server, opcode::LSEEK, node, body.as_bytes());
        }
    }
}
