// SPDX-License-Identifier: Apache-2.0
//! Every port, and addresses at which nothing is: what is there is what was meant to be there.

use crate::driver::{self, MAGIC};
use crate::entry::Call;
use crate::memory::{ELSEWHERE, RAM, WINDOWS, get, read_now, write_now};
use crate::numbers::Device;
use crate::port::{ports, tell};

/// Ports behind which there is something: the two interrupt controllers and their modes, the console, the keyboard
/// controller's reset, and pvpanic.
const KNOWN: [(u32, u32); 6] =
    [(0x20, 0x21), (0xa0, 0xa1), (0x4d0, 0x4d1), (0x3f8, 0x3ff), (0x64, 0x64), (0x505, 0x505)];
const ALL: u64 = 0x1_0000;
/// Ports that are written to in one go.
const PIECE: u32 = 0x100;

pub(crate) fn run() {
    let odd = reads() + addresses() + writes();
    tell!("done ports 65536 odd ", odd);
}

/// Whether there is something at one of `width` ports.
fn is_known(port: u32, width: u32) -> bool {
    KNOWN.iter().any(|(first, last)| port <= *last && port + width > *first)
}

/// All ports read as ones, in each width, but those behind which there is something.
fn reads() -> u32 {
    let mut odd = 0;
    for (call, width) in [(Call::In8, 1), (Call::In16, 2), (Call::In32, 4)] {
        ports(call, 0, ALL, (ELSEWHERE, 0));
        for port in 0..ALL as u32 {
            let read =
                (0..width).all(|byte| get::<u8>(ELSEWHERE + u64::from(port * width + byte)) == u8::MAX);
            if !read && !is_known(port, width) {
                tell!("odd: port ", port, " has something for reads of ", width);
                odd += 1;
            }
        }
    }
    odd
}

/// Beyond memory, around the windows, and where other machines have devices. KVM's own controllers are left out.
fn addresses() -> u32 {
    let beyond = (RAM..0xc000_0000).step_by(64 << 20);
    let hole = (0xc000_0000..WINDOWS).step_by(4 << 20);
    let behind = (WINDOWS + 0x4000..0xfec0_0000).step_by(1 << 20);
    let last = [RAM, RAM + 8, WINDOWS - 8, WINDOWS + 0x4000, 0xfed0_0000, 0xfed4_0000, 0xffff_fff0];
    let mut odd = 0;
    for at in beyond.chain(hole).chain(behind).chain(last) {
        if read_now::<u64>(at) != u64::MAX || read_now::<u8>(at + 1) != u8::MAX {
            tell!("odd: something at ", at);
            odd += 1;
        }
        write_now(at, u64::MAX);
        write_now(at + 3, 0x55u8);
    }
    odd
}

/// Writes to all ports but those behind which there is something, and to all of each window beyond its registers.
fn writes() -> u32 {
    for (call, width) in [(Call::Out8, 1), (Call::Out16, 2), (Call::Out32, 4)] {
        for piece in (0..ALL as u32).step_by(PIECE as usize) {
            if !is_known(piece, PIECE + width) {
                ports(call, piece as u16, PIECE.into(), (0, 0xfefe_fefe));
            } else {
                let quiet = (piece..piece + PIECE).filter(|port| !is_known(*port, width));
                quiet.for_each(|port| ports(call, port as u16, 1, (0, 0xfefe_fefe)));
            }
        }
    }
    let mut odd = 0;
    for number in Device::ALL.map(|device| device as u64) {
        let mut device = driver::Device::new(number);
        for offset in (0x100..0x1000).step_by(4) {
            device.write(offset, u32::MAX);
        }
        if device.read(MAGIC) != u32::from_le_bytes(*b"virt") {
            tell!("odd: device ", number, " is gone");
            odd += 1;
        }
    }
    odd
}
