// SPDX-License-Identifier: Apache-2.0
//! A guest kernel that means no good, started like any other; what it is to do the host has written into its image.
//!
//! ```text
//!   entry ──► main ──┬─► sequences ──► registers, rings, contents, resets: at random, from a seed and a number
//!   (CPL 0)  (CPL 3) ├─► shapes ─────► chains and rings made by hand, each once a queue
//!                    ├─► names ──────► every request with a name, with names that are none
//!                    ├─► sweep ──────► all ports, and addresses that belong to nothing
//!                    └─► agent ──────► says to the engine what no agent would
//! ```
//!
//! It tells over the serial console what it does, `begins` first. A line `odd` is a finding of its own; `done` is the last.
//! Each sequence is made from the seed and its own number, so that a run from any number on does what the first one did there.
#![no_std]
#![no_main]

mod agent;
mod contents;
mod driver;
mod entry;
mod frames;
mod fuse;
mod memory;
mod names;
mod numbers;
mod orders;
mod packets;
mod port;
mod random;
mod registers;
mod rings;
mod sequences;
mod session;
mod shapes;
mod stream;
mod sweep;

use core::panic::PanicInfo;
use entry::halt;
use numbers::Deed;
use orders::Orders;
use port::tell;

type Act = fn(&Orders);

/// What each deed is done by.
const DEEDS: [(Deed, Act); 5] = [
    (Deed::Sequences, sequences::run),
    (Deed::Shapes, |orders| shapes::run(orders.device)),
    (Deed::Names, |orders| names::run(orders.device)),
    (Deed::Sweep, |_| sweep::run()),
    (Deed::Agent, agent::run),
];

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    let orders = Orders::read();
    // Before this the host has no figure to compare with.
    tell!("begins");
    match DEEDS.iter().find(|(deed, _)| *deed as u64 == orders.deed) {
        Some((_, act)) => act(&orders),
        None => tell!("odd: no such deed"),
    }
    tell!("halt");
    halt()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => {
            tell!("odd: the attacker panicked in line ", u64::from(place.line()), " of ", place.file())
        }
        _ => tell!("odd: the attacker panicked"),
    }
    halt()
}
