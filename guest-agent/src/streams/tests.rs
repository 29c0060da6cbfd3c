// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::link::Link;
use isopod_protocol::window::INITIAL;
use isopod_protocol::{Decoder, Frame};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

fn line() -> (Link, OwnedFd) {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    (Link::new(ours), theirs)
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
}

/// Everything the host gets to see now.
fn heard(host: &OwnedFd, decoder: &mut Decoder, mut each: impl FnMut(Frame<'_>)) {
    while let Ok(n @ 1..) = read(host, decoder.space()) {
        decoder.advance(n);
        while let Some(frame) = decoder.next_frame().unwrap() {
            each(frame);
        }
    }
}

#[test]
fn output_arrives_whole_and_in_order_in_small_and_large_pieces() {
    let (mut link, host) = line();
    let (reads, writes) = pipe();
    let mut output = Output::pipe(StreamId::STDOUT, reads);
    let mut decoder = Decoder::default();
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    for n in 0..200_u32 {
        let piece: Vec<u8> = (0..n * 997 % 70_000).map(|i| (i ^ n).to_le_bytes()[0]).collect();
        let written = write(&writes, &piece).unwrap_or(0);
        sent.extend_from_slice(&piece[..written]);
        if link.out.takes_data() && output.wants() {
            output.pump(&mut link.out, false);
        }
        let promised = link.out.promised();
        let fd = promised.map(|_| output.fd().unwrap());
        link.flush(fd).unwrap();
        heard(&host, &mut decoder, |frame| match frame {
            Frame::Data(StreamId::STDOUT, bytes) => got.extend_from_slice(bytes),
            other => panic!("{other:?}"),
        });
        if output.window.room() < INITIAL as usize / 2 {
            let room = INITIAL - u32::try_from(output.window.room()).unwrap();
            output.window.grant(room).unwrap();
        }
    }
    drop(writes);
    while !output.has_ended() || !link.out.is_empty() {
        if link.out.takes_data() && output.wants() {
            output.pump(&mut link.out, true);
        }
        link.flush(Some(output.fd().unwrap())).unwrap();
        heard(&host, &mut decoder, |frame| match frame {
            Frame::Data(_, bytes) => got.extend_from_slice(bytes),
            other => panic!("{other:?}"),
        });
    }
    let first = sent.iter().zip(&got).position(|(a, b)| a != b);
    assert!(sent == got, "{} bytes sent, {} came, the first wrong one is {first:?}", sent.len(), got.len());
    assert!(sent.len() > 2_000_000);
}

#[test]
fn input_that_nobody_reads_is_kept_and_granted_only_when_it_was_read() {
    let (mut link, _host) = line();
    let (reads, writes) = pipe();
    let mut input = Input::pipe(writes);
    input.data(&[1; 60_000], &mut link.out).unwrap();
    input.data(&[2; 60_000], &mut link.out).unwrap();
    input.data(&[3; 60_000], &mut link.out).unwrap();
    assert!(link.out.is_empty());
    let mut buf = vec![0; 200_000];
    let mut got = 0;
    while let Ok(n @ 1..) = read(&reads, &mut buf[got..]) {
        got += n;
        input.go_on(&mut link.out);
    }
    assert_eq!(got, 180_000);
    assert!(buf[..got].is_sorted());
    assert!(!link.out.is_empty());
}

#[test]
fn input_beyond_the_window_is_a_lie() {
    let (mut link, _host) = line();
    let (_reads, writes) = pipe();
    let mut input = Input::pipe(writes);
    for _ in 0..4 {
        input.data(&[0; 64 * 1024], &mut link.out).unwrap();
    }
    assert!(input.data(&[0], &mut link.out).is_err());
}

#[test]
fn a_reader_that_leaves_is_told_once_and_what_comes_is_still_granted() {
    let (mut link, host) = line();
    let (reads, writes) = pipe();
    drop(reads);
    let mut input = Input::pipe(writes);
    for _ in 0..20 {
        input.data(&[0; 64 * 1024], &mut link.out).unwrap();
    }
    link.flush(None).unwrap();
    let (mut ends, mut granted) = (0, 0);
    heard(&host, &mut Decoder::default(), |frame| match frame {
        Frame::Eof(StreamId::STDIN) => ends += 1,
        Frame::Window(StreamId::STDIN, more) => granted += more,
        other => panic!("{other:?}"),
    });
    assert_eq!((ends, granted), (1, 20 * 64 * 1024));
}

#[test]
fn the_end_of_input_comes_after_all_of_it() {
    let (mut link, _host) = line();
    let (reads, writes) = pipe();
    let mut input = Input::pipe(writes);
    input.data(&[7; 64 * 1024], &mut link.out).unwrap();
    input.data(&[8; 10], &mut link.out).unwrap();
    input.end();
    let mut buf = vec![0; 64 * 1024];
    assert_eq!(read(&reads, &mut buf).unwrap(), 64 * 1024);
    input.go_on(&mut link.out);
    assert_eq!(read(&reads, &mut buf).unwrap(), 10);
    assert_eq!(read(&reads, &mut buf).unwrap(), 0);
}
