// SPDX-License-Identifier: Apache-2.0
//! Chains that are sound and hold what is not, for each kind of device; and one honest request, which every device must
//! answer after whatever was done to it.

use crate::driver::{Device, NEXT, QUEUE_NOTIFY, RNG, VSOCK, WRITE};
use crate::memory::{ANSWERS, BUFFERS, ELSEWHERE, get};
use crate::packets::{self, AGENT, CREDIT_REQUEST, CREDIT_UPDATE, Packet, REQUEST, RESET, RX, TX};
use crate::port::tell;
use crate::random::Random;
use crate::session::{self, SLOTS, Session};

/// Ticks that chains may take that are sound in themselves.
const WHILE: u64 = 2_000_000;

/// Whom there is to talk to behind a device's queues.
#[derive(Debug, Default)]
pub(crate) struct Partner {
    /// The agent's port, if it is connected.
    pub(crate) connection: Option<u32>,
    pub(crate) session: Session,
}

impl Partner {
    /// Starts the device anew unless it runs. A share then mostly has a session, or nothing would come of any request.
    pub(crate) fn ensure(&mut self, device: &mut Device, random: &mut Random) {
        if device.ensure_running() && is_share(device) && !random.once_in(8) {
            self.session.open(device, random);
        }
    }
}

pub(crate) fn is_share(device: &Device) -> bool {
    ![VSOCK, RNG].contains(&device.number)
}

/// Several at once.
pub(crate) fn attack(device: &mut Device, random: &mut Random, partner: &mut Partner) {
    partner.ensure(device, random);
    match device.number {
        VSOCK => packets(device, random, partner.connection),
        RNG => entropy(device, random),
        _ => requests(device, random, &mut partner.session),
    }
}

/// Not always: the next chains may as well come while these are looked at.
fn wait(device: &mut Device, random: &mut Random, queue: u64) {
    if random.once_in(6) || device.is_half_full(queue) {
        device.settle(queue, WHILE);
    }
}

fn requests(device: &mut Device, random: &mut Random, session: &mut Session) {
    session.look();
    let queue = random.below(2);
    for slot in 0..1 + random.below(SLOTS) {
        session.ask(device, random, (queue, slot));
    }
    device.kick(queue);
    wait(device, random, queue);
}

fn entropy(device: &mut Device, random: &mut Random) {
    for head in 0..1 + random.below(3) as u16 {
        let len = random.pick(&[1, 64, 4095, 4096, 4097, 0x10_0000, 0x1b0_0000]);
        device.describe(0, head, (ELSEWHERE, len), (WRITE, 0));
        device.offer(0, head);
    }
    device.kick(0);
    wait(device, random, 0);
}

fn packets(device: &mut Device, random: &mut Random, connection: Option<u32>) {
    if random.once_in(2) {
        // Mostly enough for an answer.
        let size = device.size(RX);
        let len = random.pick(&[4096, 4096, 44, 43, 45, 1]);
        for n in 0..random.below(u64::from(size)) as u16 {
            device.describe(RX, n, (ANSWERS + u64::from(n) * 0x1000, len), (WRITE, 0));
            device.offer(RX, n);
        }
        device.kick(RX);
    }
    for slot in 0..1 + random.below(8) {
        let packet = match connection {
            Some(port) if random.once_in(2) => packets::on_connection(random, slot, port),
            _ => packets::any(random, slot),
        };
        let (head, half) = (slot as u16 * 4, packet.1 / 2);
        if half > 0 && random.once_in(3) {
            // A header in two pieces.
            device.describe(TX, head, (packet.0, half), (NEXT, head + 1));
            device.describe(TX, head + 1, (packet.0 + u64::from(half), packet.1 - half), (0, 0));
        } else {
            device.describe(TX, head, packet, (0, 0));
        }
        device.offer(TX, head);
    }
    device.kick(TX);
    wait(device, random, TX);
}

/// Whether a device that is started anew does what it is for.
pub(crate) fn serves(device: &mut Device, connection: Option<u32>) -> bool {
    device.start();
    match device.number {
        VSOCK => refuses_nobody(device) && connection.is_none_or(|port| still_hears(device, port)),
        RNG => gives_entropy(device, 64),
        _ => session::begins(device, u32::MAX) && session::has_root(device, true),
    }
}

fn gives_entropy(device: &mut Device, len: u32) -> bool {
    device.describe(0, 0, (ANSWERS, len), (WRITE, 0));
    device.offer(0, 0);
    device.kick(0);
    device.answer(0) == Some((0, len))
}

/// Whether a packet to nobody is taken, and refused.
fn refuses_nobody(device: &mut Device) -> bool {
    for n in 0..device.size(RX) {
        device.describe(RX, n, (ANSWERS + u64::from(n) * 0x1000, 4096), (WRITE, 0));
        device.offer(RX, n);
    }
    device.write(QUEUE_NOTIFY, RX as u32);
    let mut packet = Packet::agents(99, REQUEST);
    packet.to.1 = 5;
    // The source's port and the operation: refusals of an earlier life may come first.
    answers_packet(device, packet, |at| get::<u32>(at + 20) == 99 && get::<u16>(at + 30) == RESET)
}

/// Whether the agent's connection is open after all, and says so when it is asked. Behind `refuses_nobody`.
fn still_hears(device: &mut Device, port: u32) -> bool {
    let packet = Packet::agents(port, CREDIT_REQUEST);
    answers_packet(device, packet, |at| {
        get::<u32>(at + 20) == port && get::<u16>(at + 30) == CREDIT_UPDATE && get::<u32>(at + 16) == AGENT
    })
}

/// Whether it is taken, and an answer comes such as is awaited, among others maybe.
fn answers_packet(device: &mut Device, packet: Packet, is_awaited: impl Fn(u64) -> bool) -> bool {
    packet.put(BUFFERS);
    device.describe(TX, 0, (BUFFERS, packets::HEADER), (0, 0));
    device.offer(TX, 0);
    device.kick(TX);
    if device.answer(TX) != Some((0, 0)) {
        tell!("the packet is not taken");
        return false;
    }
    while let Some((head, len)) = device.answer(RX) {
        let is_it = len == packets::HEADER && is_awaited(ANSWERS + u64::from(head) * 0x1000);
        device.offer(RX, head);
        device.kick(RX);
        if is_it {
            return true;
        }
    }
    tell!("operation ", u32::from(packet.op), " is not answered");
    false
}

/// After `after_the_start`: the rings it was started with are still its rings, and a share's session is still the same.
pub(crate) fn still_serves(device: &mut Device, (number, in_session): (u64, bool)) -> u32 {
    let works = match device.number {
        RNG => gives_entropy(device, 32),
        VSOCK => refuses_nobody(device),
        _ => session::has_root(device, in_session),
    };
    if !works {
        tell!("odd: sequence ", number, ": a running device lost its rings");
    }
    u32::from(!works)
}
