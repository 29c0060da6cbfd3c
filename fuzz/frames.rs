// SPDX-License-Identifier: Apache-2.0
//! The stream between host and agent, each way: what was put into it comes out of it however it is cut, and
//! bytes nobody put there are an error or a frame, within the decoder's bounds.

use arbitrary::{Arbitrary, Unstructured};
use isopod_protocol::frame::{self, HEADER_LEN, MAX_DATA, MAX_MESSAGE};
use isopod_protocol::message::{
    Ack, AgentSays, Container, EtcFile, Exited, Failed, FromAgent, FromHost, Hello, Started, Tmpfs,
    WindowSize,
};
use isopod_protocol::{Decoder, Frame, StreamId};
use prost::Message;

#[derive(Debug, Arbitrary)]
struct Stream<'a, M> {
    /// Bytes that arrive at once.
    cut: u16,
    pieces: Vec<Piece<'a, M>>,
}

#[derive(Debug, Arbitrary)]
enum Piece<'a, M> {
    Data(u16, &'a [u8]),
    LongData(u16, u16),
    Eof(u16),
    Window(u16, u32),
    Message(M),
    /// A message's frame around bytes that may be none.
    Alleged(&'a [u8]),
    /// Not even a frame.
    Raw(&'a [u8]),
}

/// A message in a form the fuzzer can make up, and the type it is sent as.
trait Said {
    type Wire: Message + Default + PartialEq;
    fn wire(&self) -> Self::Wire;
    fn put(out: &mut Vec<u8>, wire: &Self::Wire);
}

#[derive(Debug, Arbitrary)]
enum SaidByAgent<'a> {
    Hello { version: u32, agent: &'a str, kernel: &'a str },
    Started { mounts_us: u64, started_us: u64 },
    Failed { kind: i32, message: &'a str },
    Ack,
    Exited { code: Option<i32>, signal: Option<i32>, out_of_memory: bool },
    Nothing,
}

impl Said for SaidByAgent<'_> {
    type Wire = FromAgent;

    fn wire(&self) -> FromAgent {
        let says = match *self {
            Self::Hello { version, agent, kernel } => AgentSays::Hello(Hello {
                version,
                agent: agent.to_owned(),
                kernel: kernel.to_owned(),
                mailbox: 0,
            }),
            Self::Started { mounts_us, started_us } => AgentSays::Started(Started { mounts_us, started_us }),
            Self::Failed { kind, message } => AgentSays::Failed(Failed { kind, message: message.to_owned() }),
            Self::Ack => AgentSays::Ack(Ack {}),
            Self::Exited { code, signal, out_of_memory } => {
                AgentSays::Exited(Exited { code, signal, out_of_memory })
            }
            Self::Nothing => return FromAgent { says: None },
        };
        says.into()
    }

    fn put(out: &mut Vec<u8>, wire: &FromAgent) {
        frame::put_from_agent(out, wire).expect("no script is that long");
    }
}

#[derive(Debug, Arbitrary)]
enum SaidByHost<'a> {
    Start(Start<'a>),
    Signal(i32),
    Resize(u32, u32),
    Nothing,
}

#[derive(Debug, Arbitrary)]
struct Start<'a> {
    args: Vec<&'a [u8]>,
    env: Vec<&'a [u8]>,
    cwd: &'a [u8],
    user: &'a str,
    terminal: Option<(u32, u32)>,
    capabilities: u64,
    seccomp: &'a [u8],
    tmpfs: Vec<(&'a str, &'a str)>,
    files: Vec<(&'a str, &'a [u8])>,
    masked: Vec<&'a str>,
}

impl Start<'_> {
    fn container(&self) -> Container {
        let owned = |all: &[&[u8]]| all.iter().map(|one| one.to_vec()).collect();
        let tmpfs = |(target, options): &(&str, &str)| Tmpfs {
            target: (*target).to_owned(),
            options: (*options).to_owned(),
        };
        let file =
            |(path, content): &(&str, &[u8])| EtcFile { path: (*path).to_owned(), content: content.to_vec() };
        Container {
            args: owned(&self.args),
            env: owned(&self.env),
            cwd: self.cwd.to_vec(),
            user: self.user.to_owned(),
            terminal: self.terminal.map(|(rows, columns)| WindowSize { rows, columns }),
            capabilities: self.capabilities,
            seccomp: self.seccomp.to_vec(),
            tmpfs: self.tmpfs.iter().map(tmpfs).collect(),
            files: self.files.iter().map(file).collect(),
            masked_paths: self.masked.iter().map(|path| (*path).to_owned()).collect(),
            ..Container::default()
        }
    }
}

impl Said for SaidByHost<'_> {
    type Wire = FromHost;

    fn wire(&self) -> FromHost {
        match self {
            Self::Start(start) => FromHost::start(start.container()),
            Self::Signal(number) => FromHost::signal(*number),
            Self::Resize(rows, columns) => FromHost::resize(WindowSize { rows: *rows, columns: *columns }),
            Self::Nothing => FromHost { says: None },
        }
    }

    fn put(out: &mut Vec<u8>, wire: &FromHost) {
        frame::put_from_host(out, wire).expect("no script is that long");
    }
}

/// What came, or should come, out of a decoder.
#[derive(Debug, PartialEq)]
enum Came<W> {
    Data(u16, Vec<u8>),
    Eof(u16),
    Window(u16, u32),
    Message(W),
    /// A message's frame with something else in it.
    Nonsense,
}

pub(crate) fn from_agent(bytes: &[u8]) {
    if let Ok(stream) = Unstructured::new(bytes).arbitrary::<Stream<'_, SaidByAgent<'_>>>() {
        check(&stream);
    }
}

pub(crate) fn from_host(bytes: &[u8]) {
    if let Ok(stream) = Unstructured::new(bytes).arbitrary::<Stream<'_, SaidByHost<'_>>>() {
        check(&stream);
    }
}

fn check<M: Said>(stream: &Stream<'_, M>) {
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    let mut is_honest = true;
    for piece in &stream.pieces {
        is_honest &= put(piece, &mut bytes, &mut expected);
    }
    let mut came = Vec::new();
    let whole = decode::<M::Wire>(&bytes, usize::from(stream.cut).max(1), &mut came);
    if is_honest {
        assert!(whole, "an honest stream was refused");
        assert!(came == expected, "what came is not what was sent");
    }
}

/// Puts a piece into the stream, and what it should come out as; gives whether it is known.
fn put<M: Said>(piece: &Piece<'_, M>, bytes: &mut Vec<u8>, expected: &mut Vec<Came<M::Wire>>) -> bool {
    match piece {
        Piece::Data(stream, data) => put_data(bytes, expected, *stream, data),
        Piece::LongData(stream, len) => put_data(bytes, expected, *stream, &vec![7; 4 * usize::from(*len)]),
        Piece::Eof(stream) => {
            frame::put_eof(bytes, StreamId(*stream));
            expected.push(Came::Eof(*stream));
        }
        Piece::Window(stream, n) => {
            frame::put_window(bytes, StreamId(*stream), *n);
            expected.push(Came::Window(*stream, *n));
        }
        Piece::Message(said) => {
            let wire = said.wire();
            M::put(bytes, &wire);
            expected.push(Came::Message(wire));
        }
        Piece::Alleged(payload) => {
            let len = u32::try_from(payload.len()).expect("no script is that long");
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(payload);
            expected.push(M::Wire::decode(*payload).map_or(Came::Nonsense, Came::Message));
        }
        Piece::Raw(raw) => {
            bytes.extend_from_slice(raw);
            return raw.is_empty();
        }
    }
    true
}

fn put_data<W>(bytes: &mut Vec<u8>, expected: &mut Vec<Came<W>>, stream: u16, data: &[u8]) {
    frame::put_data(bytes, StreamId(stream), data);
    expected.extend(data.chunks(MAX_DATA).map(|piece| Came::Data(stream, piece.to_vec())));
}

/// Feeds a decoder in pieces; gives whether it took everything.
fn decode<W: Message + Default>(bytes: &[u8], cut: usize, came: &mut Vec<Came<W>>) -> bool {
    let mut decoder = Decoder::default();
    for part in bytes.chunks(cut) {
        let mut rest = part;
        while !rest.is_empty() {
            let space = decoder.space();
            assert!(!space.is_empty() && space.len() <= HEADER_LEN + MAX_MESSAGE);
            let n = space.len().min(rest.len());
            space[..n].copy_from_slice(&rest[..n]);
            decoder.advance(n);
            rest = &rest[n..];
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => came.push(own(&frame)),
                    Ok(None) => break,
                    Err(_) => return false,
                }
            }
        }
    }
    true
}

fn own<W: Message + Default>(frame: &Frame<'_>) -> Came<W> {
    match frame {
        Frame::Message(payload) => W::decode(*payload).map_or(Came::Nonsense, Came::Message),
        Frame::Data(StreamId(stream), data) => Came::Data(*stream, data.to_vec()),
        Frame::Eof(StreamId(stream)) => Came::Eof(*stream),
        Frame::Window(StreamId(stream), n) => Came::Window(*stream, *n),
    }
}
