// SPDX-License-Identifier: Apache-2.0
//! Every request that takes a name, with every name that is none; and everything that would change something.

use crate::driver::Device;
use crate::fuse::{self, CHANGING, LOOKUP, NAMES};
use crate::memory::{ANSWERS, BUFFERS};
use crate::port::tell;
use crate::session::{self, EIO};

/// Requests whose names begin so many bytes behind the header (`fuse.h`): LOOKUP, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME,
/// LINK, SETXATTR, GETXATTR, REMOVEXATTR, CREATE, RENAME2, TMPFILE, SYNCFS.
const NAMED: [(u32, u32); 15] = [
    (LOOKUP, 0),
    (6, 0),
    (8, 16),
    (9, 8),
    (10, 0),
    (11, 0),
    (12, 8),
    (13, 8),
    (21, 8),
    (22, 8),
    (24, 0),
    (35, 16),
    (45, 16),
    (51, 16),
    (50, 8),
];
const LENGTHS: [usize; 6] = [255, 256, 257, 1024, 3000, 4096];
/// Locks, BMAP, IOCTL, POLL, NOTIFY_REPLY, SETUPMAPPING, REMOVEMAPPING: never agreed on.
const NEVER: [u32; 9] = [31, 32, 33, 37, 39, 40, 41, 48, 49];
/// GETATTR, READLINK, READ, READDIR, READDIRPLUS, GETXATTR, LISTXATTR, LSEEK.
const OF_NODES: [u32; 8] = [3, 5, 15, 28, 44, 22, 23, 46];

/// How it went so far.
struct Questions {
    device: Device,
    in_session: bool,
    tried: u32,
    odd: u32,
}

pub(crate) fn run(number: u64) {
    let mut device = Device::new(number);
    device.start();
    let mut questions = Questions { device, in_session: false, tried: 0, odd: 0 };
    // Before INIT nothing is answered but with one error.
    for opcode in (1..60).filter(|opcode| ![2, 26, 36, 42].contains(opcode)) {
        questions.ask(fuse::named(BUFFERS, opcode, 1, 40, b"x\0"), "before INIT", opcode);
    }
    // Without a session all that follows would be refused for that alone; and so it would if the session were lost.
    questions.expect("INIT", |device| session::begins(device, u32::MAX));
    questions.in_session = true;
    questions.expect("the root", |device| session::has_root(device, true));
    questions.names();
    questions.expect("the root after names", |device| session::has_root(device, true));
    for opcode in CHANGING.iter().chain(&NEVER) {
        for node in [0, 1, 2, 3, u64::MAX, 1 << 32] {
            let len = fuse::named(BUFFERS, *opcode, node, 64, b"new\0");
            questions.ask(len, "that changes something, or was never agreed on,", *opcode);
        }
    }
    for opcode in OF_NODES {
        for node in [0, 1 << 32, u64::MAX, 0xffff_ffff, 1 << 63] {
            questions.ask(fuse::named(BUFFERS, opcode, node, 40, b""), "of a node that is not there", opcode);
        }
    }
    questions.expect("the root at the end", |device| session::has_root(device, true));
    tell!("done names ", questions.tried, " odd ", questions.odd);
}

impl Questions {
    /// What must be answered, and without an error.
    fn expect(&mut self, what: &str, is_had: fn(&mut Device) -> bool) {
        if !is_had(&mut self.device) {
            tell!("odd: ", what, " is not to be had");
            self.odd += 1;
        }
    }

    fn names(&mut self) {
        for (opcode, front) in NAMED {
            for name in NAMES {
                self.ask(fuse::named(BUFFERS, opcode, 1, front, name), "with a name that is none", opcode);
            }
            for len in LENGTHS {
                let mut long = [b'n'; 4096];
                let endless = fuse::named(BUFFERS, opcode, 1, front, &long[..len]);
                self.ask(endless, "with a name without an end", opcode);
                if len > 256 {
                    long[len - 1] = 0;
                    self.ask(
                        fuse::named(BUFFERS, opcode, 1, front, &long[..len]),
                        "with a long name",
                        opcode,
                    );
                }
            }
        }
    }

    /// The request in the first buffer must be answered, and by nothing but an error: in a session, by one of its own.
    fn ask(&mut self, len: u32, what: &str, opcode: u32) {
        self.tried += 1;
        let answered = self.exchange(len);
        let error = fuse::error(ANSWERS);
        let is_error = (-4095..0).contains(&error) && (error == EIO) != self.in_session;
        if answered != Some((0, 16)) || !is_error {
            tell!("odd: request ", opcode, " ", what, " was not refused");
            self.odd += 1;
        }
    }

    fn exchange(&mut self, len: u32) -> Option<(u16, u32)> {
        self.device.request(1, 0, (BUFFERS, len), (ANSWERS, 0x1000));
        self.device.offer(1, 0);
        self.device.kick(1);
        self.device.answer(1)
    }
}
