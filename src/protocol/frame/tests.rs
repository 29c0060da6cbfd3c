// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::message::Container;
use proptest::prelude::*;

/// What arrived, owned, so that frames can be compared after the decoder moved on.
#[derive(Debug, PartialEq)]
enum Owned {
    Data(u16, Vec<u8>),
    Eof(u16),
    Window(u16, u32),
}

fn feed(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> Result<Vec<Owned>, FrameError> {
    let mut got = Vec::new();
    for part in bytes.chunks(piece) {
        let mut rest = part;
        while !rest.is_empty() {
            let space = decoder.space();
            let n = rest.len().min(space.len());
            space[..n].copy_from_slice(&rest[..n]);
            decoder.advance(n);
            rest = &rest[n..];
            while let Some(frame) = decoder.next_frame()? {
                got.push(match frame {
                    Frame::Message(_) => unreachable!("none was sent"),
                    Frame::Data(StreamId(s), d) => Owned::Data(s, d.to_vec()),
                    Frame::Eof(StreamId(s)) => Owned::Eof(s),
                    Frame::Window(StreamId(s), n) => Owned::Window(s, n),
                });
            }
        }
    }
    Ok(got)
}

fn encode(frames: &[Owned]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        match frame {
            Owned::Data(s, d) => put_data(&mut out, StreamId(*s), d),
            Owned::Eof(s) => put_eof(&mut out, StreamId(*s)),
            Owned::Window(s, n) => put_window(&mut out, StreamId(*s), *n),
        }
    }
    out
}

fn any_frame() -> impl Strategy<Value = Owned> {
    prop_oneof![
        (any::<u16>(), prop::collection::vec(any::<u8>(), 1..5000)).prop_map(|(s, d)| Owned::Data(s, d)),
        any::<u16>().prop_map(Owned::Eof),
        (any::<u16>(), any::<u32>()).prop_map(|(s, n)| Owned::Window(s, n)),
    ]
}

proptest! {
    #[test]
    fn frames_survive_any_cutting(
        frames in prop::collection::vec(any_frame(), 0..12),
        piece in 1usize..7000,
    ) {
        let got = feed(&mut Decoder::default(), &encode(&frames), piece).unwrap();
        prop_assert_eq!(got, frames);
    }

    #[test]
    fn no_bytes_make_the_decoder_grow_past_one_message(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        let mut decoder = Decoder::default();
        for byte in &bytes {
            let Some(slot) = decoder.space().first_mut() else { break };
            *slot = *byte;
            decoder.advance(1);
            loop {
                match decoder.next_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
        prop_assert!(decoder.buf.len() <= HEADER_LEN + MAX_MESSAGE);
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
    let mut decoder = Decoder::default();
    decoder.space()[..8].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, KIND_DATA, 0, 1, 0]);
    decoder.advance(8);
    assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong { .. })));
}

#[test]
fn a_message_larger_than_the_first_buffer_arrives_whole() {
    let big = FromHost::start(Container { args: vec![vec![b'x'; 300_000]], ..Default::default() });
    let mut bytes = Vec::new();
    put_from_host(&mut bytes, &big).unwrap();
    let mut decoder = Decoder::default();
    let mut rest = &bytes[..];
    let got = loop {
        if let Some(Frame::Message(m)) = decoder.next_frame().unwrap() {
            break FromHost::decode(m).unwrap();
        }
        let space = decoder.space();
        let n = rest.len().min(space.len()).min(10_000);
        space[..n].copy_from_slice(&rest[..n]);
        decoder.advance(n);
        rest = &rest[n..];
    };
    assert_eq!(got, big);
}
