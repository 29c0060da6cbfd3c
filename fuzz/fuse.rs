// SPDX-License-Identifier: Apache-2.0
//! FUSE requests to the server of an index: whatever is asked, the answer has the length it says, stays in its room, and
//! carries an errno or what was asked for.

use crate::index;
use arbitrary::{Arbitrary, Unstructured};
use isopod_fs::{IndexServer, Reply, Server};
use isopod_index::Index;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

const IN_HEADER_LEN: usize = 40;
const OUT_HEADER_LEN: usize = 16;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// What the tree is made of.
    tree: &'a [u8],
    /// Most sessions begin with the negotiation.
    skips_init: Option<bool>,
    requests: Vec<Request<'a>>,
}

#[derive(Debug, Arbitrary)]
struct Request<'a> {
    body: Body<'a>,
    node: Node,
    /// Room for the answer, or plenty.
    room: Option<u16>,
    /// A length that is not the request's.
    lie: Option<u32>,
    unique: u64,
}

#[derive(Debug, Arbitrary)]
enum Node {
    Root,
    Small(u8),
    Any(u64),
}

#[derive(Debug, Arbitrary)]
enum Body<'a> {
    Lookup(&'a [u8]),
    LookupNear(u8),
    GetAttr,
    ReadLink,
    Open(u32),
    Read {
        offset: u32,
        size: u32,
    },
    ReadFar {
        offset: u64,
        size: u32,
    },
    ReadDir {
        plus: bool,
        offset: u8,
        size: u16,
    },
    ReadDirFar {
        plus: bool,
        offset: u64,
        size: u32,
    },
    GetXattr(u32, &'a [u8]),
    ListXattr(u32),
    StatFs,
    Seek {
        offset: u64,
        whence: u32,
    },
    Init {
        major: u32,
        minor: u32,
        flags: u32,
    },
    InitUsual,
    Forget,
    Destroy,
    Any {
        opcode: u8,
        body: &'a [u8],
    },
    /// Not even a header, perhaps.
    Raw(&'a [u8]),
}

pub(crate) fn requests(bytes: &[u8]) {
    let Ok(input) = Unstructured::new(bytes).arbitrary::<Input<'_>>() else {
        return;
    };
    let Some(files) = index::sample(input.tree).and_then(files) else {
        return;
    };
    let mut server = Server::new(files);
    if input.skips_init != Some(true) {
        ask(&mut server, &Request::usual(Body::InitUsual));
    }
    for request in &input.requests {
        ask(&mut server, request);
    }
}

impl Request<'_> {
    fn usual(body: Body<'_>) -> Request<'_> {
        Request { body, node: Node::Root, room: None, lie: None, unique: 1 }
    }
}

/// The files of a table, and one data file.
pub(crate) fn files(table: Vec<u8>) -> Option<IndexServer<Vec<u8>>> {
    static DATA: OnceLock<File> = OnceLock::new();
    let data = DATA.get_or_init(|| {
        let mut file = File::from(memfd_create("data", MemfdFlags::CLOEXEC).expect("memfd_create"));
        file.write_all(&[0x5a; 0x2_0000]).expect("a memfd takes bytes");
        file
    });
    Some(IndexServer::new(Index::open(table).ok()?, vec![data.try_clone().ok()?]))
}

fn ask(server: &mut Server, request: &Request<'_>) {
    let bytes = encode(request);
    let mut reply = Answer { bytes: vec![0; usize::from(request.room.unwrap_or(u16::MAX))] };
    let len = server.handle(&bytes, &mut reply);
    assert!(len <= reply.bytes.len(), "an answer longer than its room");
    if len == 0 {
        return;
    }
    let header = &reply.bytes[..OUT_HEADER_LEN];
    let field = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("it is 16 bytes"));
    assert_eq!(usize::try_from(field(0)), Ok(len));
    let error = field(4).cast_signed();
    assert!((-4095..=0).contains(&error), "{error} is no error");
    assert!(error == 0 || len == OUT_HEADER_LEN, "an error with a body");
    assert_eq!(header[8..16], bytes[8..16], "an answer to another request");
}

fn encode(request: &Request<'_>) -> Vec<u8> {
    if let Body::Raw(raw) = request.body {
        return raw.to_vec();
    }
    let (opcode, body) = body(&request.body);
    let len = IN_HEADER_LEN + body.len();
    let len = request.lie.unwrap_or(u32::try_from(len).unwrap_or(u32::MAX));
    let node = match request.node {
        Node::Root => 1,
        Node::Small(n) => u64::from(n),
        Node::Any(n) => n,
    };
    let mut out = Vec::new();
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&opcode.to_le_bytes());
    out.extend_from_slice(&request.unique.to_le_bytes());
    out.extend_from_slice(&node.to_le_bytes());
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&body);
    out
}

/// The opcode of `enum fuse_opcode` and what follows the header.
fn body(body: &Body<'_>) -> (u32, Vec<u8>) {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let range = |offset: u64, size: u32| {
        let tail = words(&[size, 0, 0, 0, 0, 0]);
        [&[0; 8], &offset.to_le_bytes()[..], &tail[..]].concat()
    };
    let list = |plus| if plus { 44 } else { 28 };
    match body {
        Body::Lookup(name) => (1, [*name, &[0]].concat()),
        Body::LookupNear(n) => (1, vec![b'a' + n % 8, 0]),
        Body::GetAttr => (3, vec![0; 16]),
        Body::ReadLink => (5, Vec::new()),
        Body::Open(flags) => (14, words(&[*flags, 0])),
        Body::Read { offset, size } => (15, range(u64::from(*offset), *size)),
        Body::ReadFar { offset, size } => (15, range(*offset, *size)),
        Body::ReadDir { plus, offset, size } => (list(*plus), range(u64::from(*offset), u32::from(*size))),
        Body::ReadDirFar { plus, offset, size } => (list(*plus), range(*offset, *size)),
        Body::GetXattr(size, name) => (22, [&words(&[*size, 0])[..], name, &[0]].concat()),
        Body::ListXattr(size) => (23, words(&[*size, 0])),
        Body::StatFs => (17, Vec::new()),
        Body::Seek { offset, whence } => {
            (46, [&[0; 8], &offset.to_le_bytes()[..], &words(&[*whence, 0])].concat())
        }
        Body::Init { major, minor, flags } => (26, words(&[*major, *minor, 0x2_0000, *flags])),
        Body::InitUsual => (26, words(&[7, 41, 0x2_0000, u32::MAX, 0, 0])),
        Body::Forget => (2, vec![0; 8]),
        Body::Destroy => (38, Vec::new()),
        Body::Any { opcode, body } => (u32::from(*opcode), body.to_vec()),
        Body::Raw(raw) => (0, raw.to_vec()),
    }
}

/// Room for an answer that lets nothing be written beside it.
struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    fn at(&mut self, at: usize, len: usize) -> &mut [u8] {
        self.bytes.get_mut(at..at + len).expect("who writes has asked for the room")
    }
}

impl Reply for Answer {
    fn room(&self) -> usize {
        self.bytes.len()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.at(at, bytes.len()).copy_from_slice(bytes);
    }

    fn zero(&mut self, at: usize, len: usize) {
        self.at(at, len).fill(0);
    }

    fn fill(&mut self, at: usize, len: usize, file: &File, offset: u64) -> io::Result<usize> {
        let room = self.at(at, len);
        file.read_at(room, offset)
    }
}
