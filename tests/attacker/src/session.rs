// SPDX-License-Identifier: Apache-2.0
//! A share's session, and what became of what was asked in it: an attack whose requests all end at the server's door has
//! attacked the door.

use crate::driver::{Device, NEXT, WRITE};
use crate::fuse::{self, GETATTR, HEADER, INIT, Request, SERVED};
use crate::memory::{ANSWERS, BUFFERS, get, put};
use crate::port::tell;
use crate::random::Random;

/// Requests of one go.
pub(crate) const SLOTS: u64 = 6;
/// Between two answers.
const ROOM: u64 = 0x2_0000;
/// Where an honest request is, apart from those that are not: descriptors, its own place, its answer's.
const OWN: (u16, u64, u64) = (120, BUFFERS + 0xf000, ANSWERS + 0x1f_0000);

/// Not the door's: there is no such file, no folder, a folder, no attribute, no room for it, no byte there.
const OF_FILES: [i32; 7] = [-116, -2, -20, -21, -61, -34, -6];
/// What all requests outside a session get.
pub(crate) const EIO: i32 = -5;

#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The opcode and the number of each request whose answer was not yet looked for.
    asked: [Option<(u32, u64)>; SLOTS as usize],
    files: [u64; 8],
    found: usize,
    sent: u64,
    /// Those that a file's code answered, with what it has or with an error of its own.
    reached: u64,
    /// Of those, what was answered without an error, by their place in `SERVED`.
    served: [u32; SERVED.len()],
    inits: u32,
    refused: u32,
    no_session: u32,
    unanswered: u32,
    pub(crate) odd: u32,
}

impl Session {
    /// Which of the share's first nodes are files with something in them; for a guess hits a folder, or a link.
    pub(crate) fn explore(&mut self, device: &mut Device) {
        const NODES: u64 = 256;
        const REGULAR: u32 = 0o100;
        device.start();
        begins(device, u32::MAX);
        for node in 1..NODES {
            fuse::header(OWN.1, HEADER, GETATTR, node);
            // They are numbered without a gap.
            if self.found == self.files.len() || honest(device, HEADER) != Some((120, 0)) {
                break;
            }
            // Behind the header: how long it may be believed; then number, size, …, and 60 bytes on, the mode.
            let (size, mode) = (get::<u64>(OWN.2 + 40), get::<u32>(OWN.2 + 92));
            if size > 0 && mode >> 9 == REGULAR {
                self.files[self.found] = node;
                self.found += 1;
            }
        }
        if self.found == 0 {
            tell!("odd: device ", device.number, " has no files");
            self.odd += 1;
        }
    }

    /// With a device that was just started.
    pub(crate) fn open(&mut self, device: &mut Device, random: &mut Random) {
        let flags = random.word();
        if !begins(device, random.pick(&[u32::MAX, u32::MAX, 0, flags])) {
            tell!("odd: INIT is not answered by device ", device.number);
            self.odd += 1;
        }
    }

    /// Offers it, with room for the answer where it is looked for later.
    pub(crate) fn ask(&mut self, device: &mut Device, random: &mut Random, (queue, slot): (u64, u64)) {
        let request = fuse::any(random, slot, &self.files[..self.found]);
        self.sent += 1;
        self.asked[slot as usize] = Some((request.opcode, self.sent));
        // The request's number comes back with the answer.
        put(request.at + 8, self.sent);
        put(place(slot) + 8, 0u64);
        let head = slot as u16 * 8;
        describe(device, random, (queue, head), (request, place(slot)));
        device.offer(queue, head);
    }

    /// Sees to what came of the last ones.
    pub(crate) fn look(&mut self) {
        for slot in 0..SLOTS {
            let Some((opcode, number)) = self.asked[slot as usize].take() else { continue };
            if get::<u64>(place(slot) + 8) != number {
                self.unanswered += 1;
                continue;
            }
            match fuse::error(place(slot)) {
                0 if opcode == INIT => self.inits += 1,
                0 => self.has_served(opcode),
                EIO => self.no_session += 1,
                error if OF_FILES.contains(&error) => self.reached += 1,
                _ => self.refused += 1,
            }
        }
    }

    fn has_served(&mut self, opcode: u32) {
        if let Some(kind) = SERVED.iter().position(|served| *served == opcode) {
            self.reached += 1;
            self.served[kind] += 1;
        }
    }

    pub(crate) fn tell(&self) {
        tell!(
            "requests ",
            self.sent,
            " reached ",
            self.reached,
            " refused ",
            self.refused,
            " inits ",
            self.inits,
            " eio ",
            self.no_session,
            " unanswered ",
            self.unanswered,
        );
        for (opcode, served) in SERVED.iter().zip(self.served) {
            tell!("served ", *opcode, " ", served);
        }
    }
}

fn place(slot: u64) -> u64 {
    ANSWERS + slot * ROOM
}

fn describe(device: &Device, random: &mut Random, (queue, head): (u64, u16), (request, at): (Request, u64)) {
    let read = (request.at, request.len);
    if request.is_sound && random.once_in(2) {
        // As Linux does: whole pages apart from the answer's header, so that a file's can be mapped there.
        device.describe(queue, head, read, (NEXT, head + 1));
        device.describe(queue, head + 1, (at, 16), (WRITE | NEXT, head + 2));
        device.describe(queue, head + 2, (at + 0x1000, 0x1_0000), (WRITE, 0));
    } else if request.is_sound {
        device.request(queue, head, read, (at, random.pick(&[0x1000, 0x1_0000, 0x1_f000])));
    } else if random.once_in(10) {
        device.describe(queue, head, read, (0, 0));
    } else {
        let room = random.pick(&[0x1000, 0x1000, 16, 17, 15, 8, 1, 160, 0x2_0000, 0x10_0000]);
        device.request(queue, head, read, (at, room));
    }
}

/// Whether the root's attributes are to be had; without a session they must not be.
pub(crate) fn has_root(device: &mut Device, in_session: bool) -> bool {
    fuse::header(OWN.1, HEADER, GETATTR, 1);
    honest(device, HEADER) == Some(if in_session { (120, 0) } else { (16, EIO) })
}

/// Asks what is at its place; gives the answer's length and error.
fn honest(device: &mut Device, len: u32) -> Option<(u32, i32)> {
    let (head, from, to) = OWN;
    device.request(1, head, (from, len), (to, 0x1000));
    device.offer(1, head);
    device.kick(1);
    let (back, written) = device.answer(1)?;
    (back == head).then(|| (written, fuse::error(to)))
}

/// Whether INIT is answered, by a kernel that can do what `flags` say.
pub(crate) fn begins(device: &mut Device, flags: u32) -> bool {
    let len = fuse::init(OWN.1, flags);
    honest(device, len) == Some((80, 0))
}
