// SPDX-License-Identifier: Apache-2.0
//! Sequences at random, each made from the seed and its number alone.

use crate::contents::{self, Partner, is_share, serves, still_serves};
use crate::driver::{Device, QUEUE_NOTIFY, STATUS, Stage};
use crate::orders::Orders;
use crate::port::tell;
use crate::random::Random;
use crate::shapes::leave_broken;
use crate::{registers, rings};

/// Sequences between two words of how far it is.
const WORD: u64 = 1000;
/// Sequences between two honest requests.
const HONEST: u64 = 250;

pub(crate) fn run(orders: &Orders) {
    let mut device = Device::new(orders.device);
    let (honest, odd) = attack(&mut device, orders, None);
    let odd = odd + leave_broken(&mut device);
    tell!("done sequences ", orders.count, " honest ", honest, " odd ", odd);
}

/// Gives how many honest requests were made, and what was odd. `connection` is the agent's port, if it is connected.
pub(crate) fn attack(device: &mut Device, orders: &Orders, connection: Option<u32>) -> (u64, u32) {
    let mut partner = Partner { connection, ..Partner::default() };
    if is_share(device) {
        partner.session.explore(device);
    }
    let (mut honest, mut odd) = (0, 0);
    for number in orders.first..orders.first + orders.count {
        if number % WORD == 0 {
            tell!("at ", number);
        }
        let mut random = Random::of(orders.seed, number);
        odd += one(device, &mut random, (number, &mut partner));
        if number % HONEST == HONEST - 1 {
            honest += 1;
            if !serves(device, connection) {
                tell!(
                    "odd: after sequence ",
                    number,
                    " the device serves nobody, status ",
                    device.read(STATUS)
                );
                odd += 1;
            }
        }
    }
    if is_share(device) {
        partner.session.tell();
    }
    (honest, odd + partner.session.odd)
}

fn one(device: &mut Device, random: &mut Random, (number, partner): (u64, &mut Partner)) -> u32 {
    match random.below(32) {
        0..4 => registers::attack(device, random),
        4 => {
            device.start();
            let in_session = is_share(device) && !random.once_in(8);
            if in_session {
                partner.session.open(device, random);
            }
            registers::after_the_start(device, random);
            return still_serves(device, (number, in_session));
        }
        5..16 => rings::attack(device, random, partner),
        16..31 => contents::attack(device, random, partner),
        _ => storm(device, random),
    }
    0
}

/// Resets and starts while chains are under way.
fn storm(device: &mut Device, random: &mut Random) {
    for _ in 0..2 + random.below(4) {
        device.reach(Stage::Running, random.once_in(2));
        for queue in 0..device.queues() {
            for _ in 0..random.below(8) {
                let head = random.below(device.size(queue).into()) as u16;
                let region = rings::region(device, random, queue);
                device.describe(queue, head, region, (random.half() & 2, 0));
                device.offer(queue, head);
            }
            device.write(QUEUE_NOTIFY, queue as u32);
        }
    }
    device.flush();
}
