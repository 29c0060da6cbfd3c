// SPDX-License-Identifier: Apache-2.0
//! An agent that is none: the parts it plays against the engine.

use crate::frames::{
    ACK, DATA, EOF, EXITED, FAILED, FROZEN, Frames, HELLO, MESSAGE, STARTED, STDERR, STDIN, STDOUT, THAWED,
    VERSION, WINDOW,
};
use crate::numbers::Part;
use crate::orders::Orders;
use crate::packets::{RESET, SHUTDOWN};
use crate::port::{clock, tell};
use crate::random::Random;
use crate::sequences;
use crate::stream::{PORT, Stream};

/// What an agent's window is at the start.
const ROOM: u64 = 256 << 10;
const BUFFERS: u16 = 16;

type Play = fn(&Orders);

/// Who plays what. The seed of a part that says one of many words is which of them.
const PARTS: [(Part, Play); 19] = [
    (Part::Honest, |_| honest()),
    (Part::Silent, |_| {
        Stream::connect(BUFFERS);
    }),
    (Part::Greeted, |_| {
        greeted();
    }),
    (Part::HangsUpEarly, |_| Stream::connect(BUFFERS).say(RESET, 0)),
    (Part::HangsUp, |_| up().say(RESET, 0)),
    (Part::BreaksOff, |_| broken_off()),
    (Part::ShutsDown, |_| greeted().say(SHUTDOWN, 3)),
    (Part::WhileUp, |orders| one_of(&mut up(), orders.seed, &WHILE_UP)),
    (Part::BeforeHello, |orders| one_of(&mut Stream::connect(BUFFERS), orders.seed, &BEFORE_HELLO)),
    (Part::BeforeStart, |orders| one_of(&mut greeted(), orders.seed, &BEFORE_START)),
    (Part::Overruns, |_| overrun()),
    (Part::Floods, |orders| flood(orders.count)),
    (Part::NothingForEver, |_| nothing_for_ever()),
    (Part::Noise, noise),
    (Part::LongText, |_| long_text()),
    (Part::AttacksFromWithin, attack),
    (Part::Deaf, |_| deaf()),
    (Part::DeafWhileUp, |_| deaf_while_up()),
    (Part::Recovers, |_| recovers()),
];

pub(crate) fn run(orders: &Orders) {
    match PARTS.iter().find(|(part, _)| *part as u64 == orders.device) {
        Some((_, play)) => play(orders),
        None => tell!("odd: no part ", orders.device),
    }
}

/// Said hello, and was told what to start.
fn greeted() -> Stream {
    let mut stream = Stream::connect(BUFFERS);
    stream.send(Frames::new().hello(VERSION).bytes());
    stream.await_messages(1);
    stream
}

fn up() -> Stream {
    let mut stream = greeted();
    stream.send(Frames::new().started().bytes());
    stream
}

fn honest() {
    let end = Frames::new().frame(DATA, STDOUT, b"hello\n").frame(EOF, STDOUT, &[]).frame(EOF, STDERR, &[]);
    up().send(end.exited(&[(1, 7)]).bytes());
}

/// In the middle of a frame.
fn broken_off() {
    let mut stream = up();
    stream.send(Frames::new().header(DATA, STDOUT, 100).raw(b"ten bytes,").bytes());
    stream.say(RESET, 0);
}

type Made = fn() -> Frames;

fn one_of(stream: &mut Stream, variant: u64, all: &[Made]) {
    match all.get(variant as usize) {
        Some(made) => drop(stream.send(made().bytes())),
        None => tell!("odd: there are ", all.len(), " variants"),
    }
    while stream.is_open {
        stream.listen();
    }
}

/// What no agent says while a process runs. Each of them ends the machine.
const WHILE_UP: [Made; 38] = [
    || Frames::new().header(MESSAGE, 0, u32::MAX),
    || Frames::new().header(MESSAGE, 0, (1 << 20) + 1),
    || Frames::new().header(DATA, STDOUT, u32::MAX),
    || Frames::new().header(DATA, STDOUT, (64 << 10) + 1),
    || Frames::new().header(EOF, STDOUT, 1),
    || Frames::new().header(WINDOW, STDIN, 3),
    || Frames::new().header(WINDOW, STDIN, 5),
    || Frames::new().header(WINDOW, STDIN, u32::MAX),
    || Frames::new().header(4, 0, 0),
    || Frames::new().header(u8::MAX, u16::MAX, u32::MAX),
    || Frames::new().frame(MESSAGE, 0, &[]),
    || Frames::new().frame(MESSAGE, 0, b"\xff\xff\xff\xff\xff\xff"),
    || Frames::new().message(15, &[]),
    || Frames::new().frame(MESSAGE, 0, &[EXITED << 3 | 2, 127, 0]),
    || Frames::new().message(HELLO, &[8, 2]),
    || Frames::new().message(STARTED, &[]),
    || Frames::new().message(FAILED, &[18, 1, b'x']),
    || Frames::new().message(ACK, &[]),
    || Frames::new().message(FROZEN, &[]),
    || Frames::new().message(THAWED, &[]),
    || Frames::new().frame(DATA, STDIN, b"x"),
    || Frames::new().frame(DATA, 3, b"x"),
    || Frames::new().frame(DATA, u16::MAX, b"x"),
    || Frames::new().frame(EOF, 3, &[]),
    || Frames::new().frame(EOF, u16::MAX, &[]),
    || Frames::new().frame(WINDOW, STDOUT, &[1, 0, 0, 0]),
    || Frames::new().frame(WINDOW, u16::MAX, &[1, 0, 0, 0]),
    || Frames::new().frame(WINDOW, STDIN, &[1, 0, 0, 0]),
    || Frames::new().frame(WINDOW, STDIN, &[255, 255, 255, 255]),
    || Frames::new().frame(EOF, STDOUT, &[]).frame(EOF, STDOUT, &[]),
    || Frames::new().frame(EOF, STDERR, &[]).frame(DATA, STDERR, b"x"),
    || Frames::new().exited(&[(1, 256)]),
    || Frames::new().exited(&[(1, -1)]),
    || Frames::new().exited(&[(2, 0)]),
    || Frames::new().exited(&[(2, 65)]),
    || Frames::new().exited(&[(2, i32::MIN as i64)]),
    || Frames::new().exited(&[(1, 0), (2, 9)]),
    || Frames::new().exited(&[]),
];

const BEFORE_HELLO: [Made; 10] = [
    || Frames::new().hello(VERSION - 1),
    || Frames::new().hello(VERSION + 1),
    || Frames::new().message(HELLO, &[]),
    || Frames::new().started(),
    || Frames::new().exited(&[(1, 0)]),
    || Frames::new().frame(DATA, STDOUT, b"x"),
    || Frames::new().frame(EOF, STDIN, &[]),
    || Frames::new().frame(WINDOW, STDIN, &[0, 0, 0, 0]),
    || Frames::new().message(FAILED, &[18, 1, b'x']),
    || Frames::new().header(MESSAGE, 0, u32::MAX),
];

const BEFORE_START: [Made; 6] = [
    || Frames::new().hello(VERSION),
    || Frames::new().exited(&[(1, 0)]),
    || Frames::new().frame(DATA, STDOUT, b"x"),
    || Frames::new().message(ACK, &[]),
    || Frames::new().message(THAWED, &[]),
    || Frames::new().frame(EOF, STDERR, &[]),
];

/// More output than there is room for, which is never asked for.
fn overrun() {
    let mut stream = up();
    while stream.send(Frames::new().frame(DATA, STDOUT, &[b'x'; 8 << 10]).bytes()) {}
}

/// So many KiB of output, as fast as they are taken.
fn flood(kib: u64) {
    const PIECE: u64 = 8 << 10;
    let mut stream = up();
    let piece = Frames::new().frame(DATA, STDOUT, &[b'x'; PIECE as usize]);
    for n in 0..kib / 8 {
        if !stream.await_room(STDOUT, n * PIECE, PIECE) || !stream.send(piece.bytes()) {
            return tell!("odd: the host hung up after ", n * 8, " KiB");
        }
    }
    stream.send(Frames::new().frame(EOF, STDOUT, &[]).frame(EOF, STDERR, &[]).exited(&[(1, 0)]).bytes());
}

/// Frames without a byte, which no window holds back.
fn nothing_for_ever() {
    let mut stream = up();
    let mut frames = Frames::new();
    for _ in 0..500 {
        frames = frames.frame(DATA, STDOUT, &[]).frame(WINDOW, STDIN, &[0; 4]);
    }
    tell!("flooding");
    while stream.send(frames.bytes()) {}
}

/// Frames at random, most of them such as may be said. Tells how many, a little late.
fn noise(orders: &Orders) {
    let mut random = Random::of(orders.seed, 0);
    let mut stream = up();
    let mut said = [0u64; 3];
    let mut count = 0u64;
    while stream.is_open {
        let mut frames = Frames::new();
        for _ in 0..100 {
            frames = any_frame(frames, &mut random, &mut said, &stream);
            count += 1;
        }
        if count.is_multiple_of(1000) {
            tell!("frames ", count);
        }
        stream.send(frames.bytes());
    }
}

fn any_frame(frames: Frames, random: &mut Random, said: &mut [u64; 3], stream: &Stream) -> Frames {
    let mut bytes = [0; 64];
    random.bytes(&mut bytes);
    let len = random.below(64) as usize;
    if random.once_in(3000) {
        let kind = random.below(6) as u8;
        return frames.header(kind, random.below(4) as u16, random.below(70_000) as u32).raw(&bytes[..len]);
    }
    let output = random.pick(&[STDOUT, STDERR]);
    let place = usize::from(output);
    match random.below(4) {
        0 => frames.frame(WINDOW, STDIN, &[0; 4]),
        1 => frames.frame(DATA, output, &[]),
        _ if said[place] + 64 > ROOM + stream.heard.granted[place] => frames.frame(WINDOW, STDIN, &[0; 4]),
        _ => {
            said[place] += len as u64;
            frames.frame(DATA, output, &bytes[..len])
        }
    }
}

/// Why it did not start: a text that would take over a terminal, of as many bytes as a message may have.
fn long_text() {
    const TEXT: u32 = (1 << 20) - 16;
    let mut stream = greeted();
    // Failed, and in it field 2; both lengths in three bytes.
    let var = |n: u32| [n as u8 | 128, (n >> 7) as u8 | 128, (n >> 14) as u8];
    let head = Frames::new().header(MESSAGE, 0, TEXT + 8);
    let head = head.raw(&[FAILED << 3 | 2]).raw(&var(TEXT + 4)).raw(&[18]).raw(&var(TEXT));
    stream.send(head.bytes());
    let mut piece = Frames::new();
    (0..1024).for_each(|_| piece.add(b"\x1b[2J\r\n\x07x"));
    // The last piece is not whole.
    for _ in 0..=TEXT / 8192 {
        stream.send(piece.bytes());
    }
}

/// The devices' attack, while the agent's connection is open.
fn attack(orders: &Orders) {
    let Stream { mut device, .. } = up();
    let (honest, odd) = sequences::attack(&mut device, orders, Some(PORT));
    tell!("done sequences ", orders.count, " honest ", honest, " odd ", odd);
}

/// Never posts a buffer: whatever the host says stays with the host.
fn deaf() {
    let mut stream = Stream::connect(0);
    stream.send(Frames::new().hello(VERSION).bytes());
}

/// As `up`, but what it is told it has not read.
fn up_unheard() -> Stream {
    let mut stream = Stream::connect(0);
    stream.send(Frames::new().hello(VERSION).bytes());
    stream.send(Frames::new().started().bytes());
    stream
}

fn deaf_while_up() {
    up_unheard();
    tell!("done");
}

/// Takes nothing for a second or so, and then all that there is room for without a word about it.
fn recovers() {
    const SOME_TIME: u64 = 3_000_000_000;
    let mut stream = up_unheard();
    let from = clock();
    while clock().wrapping_sub(from) < SOME_TIME {}
    stream.post_all(BUFFERS);
    while stream.is_open && u64::from(stream.received()) < ROOM {
        stream.listen();
    }
    let end = Frames::new().frame(EOF, STDOUT, &[]).frame(EOF, STDERR, &[]);
    stream.send(end.exited(&[(1, 9)]).bytes());
}
