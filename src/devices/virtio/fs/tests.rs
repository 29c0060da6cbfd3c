// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::virtio::conformance;
use crate::virtio::conformance::driver::{BUFFERS, Driver, HIGH_START, NEXT, WRITE};
use isopod_fs::IndexServer;
use isopod_fs::abi::{self, IN_HEADER_LEN, OUT_HEADER_LEN, Put, opcode};
use isopod_index::format::Use;
use isopod_index::{Attributes, Body, Extent, Index, Tree};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::slice;
use vm_memory::{Bytes, GuestAddress};

conformance::suite!(|| Box::new(device()), serves: [0, 1]);

const HIPRIO: usize = 0;
const REQUESTS: usize = 1;

const FILE_LEN: u64 = 300_000;
/// The file's data begins after a hole of this size, and ends this much before the file does.
const HOLE: u64 = 10_000;

/// One file, `/f`, whose byte at `n` is a function of `n`, with a hole at each end.
fn device() -> Fs {
    device_of(layer())
}

fn layer() -> File {
    let data: Vec<u8> = (HOLE..FILE_LEN - HOLE).map(byte).collect();
    let mut layer = tempfile::tempfile().unwrap();
    layer.write_all(&data).unwrap();
    layer
}

fn device_of(layer: File) -> Fs {
    let mut tree = Tree::new(Use::Image, 1 << 20);
    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
    let extents = [Extent { file_offset: HOLE, len: FILE_LEN - 2 * HOLE, layer: 0, data_offset: 0 }];
    tree.describe_root(&attributes).unwrap();
    tree.put(Tree::ROOT, b"f", &attributes, Body::File { size: FILE_LEN, extents: &extents }).unwrap();
    let mut index = Vec::new();
    tree.write(&mut index).unwrap();
    Fs::new("image", IndexServer::new(Index::open(index).unwrap(), vec![layer]))
}

fn byte(offset: u64) -> u8 {
    u8::try_from(offset * 7 % 251).unwrap()
}

fn message(code: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(IN_HEADER_LEN + body.len()).unwrap();
    let header = Put::<IN_HEADER_LEN>::new().u32(len).u32(code).u64(99).u64(node).pad(IN_HEADER_LEN);
    [header.as_bytes(), body].concat()
}

const INIT: [u32; 4] = [7, 41, 1 << 17, u32::MAX];

fn started() -> Driver {
    started_with(device())
}

fn started_with(device: Fs) -> Driver {
    let mut driver = Driver::new(Box::new(device));
    driver.start();
    let body: Vec<u8> = INIT.iter().flat_map(|word| word.to_le_bytes()).chain([0; 48]).collect();
    assert_eq!(ask(&mut driver, &message(opcode::INIT, 0, &body), &[16, 64]).len(), 80);
    driver
}

/// Sends a request in one buffer per header and body, as Linux does, and gives what came back into buffers of these sizes.
fn ask(driver: &mut Driver, request: &[u8], room: &[u32]) -> Vec<u8> {
    // Apart, so that nothing is in order by chance.
    let places = room.iter().scan(HIGH_START, |at, len| {
        let place = (*at, *len);
        *at += u64::from(*len) + 100;
        Some(place)
    });
    ask_into(driver, request, &places.collect::<Vec<_>>())
}

/// The same, for buffers at these places.
fn ask_into(driver: &mut Driver, request: &[u8], room: &[(u64, u32)]) -> Vec<u8> {
    let (header, body) = request.split_at(IN_HEADER_LEN.min(request.len()));
    let mut index = 0;
    let mut at = BUFFERS;
    let last = u16::try_from(1 + usize::from(!body.is_empty()) + room.len() - 1).unwrap();
    for part in [header, body].into_iter().filter(|part| !part.is_empty()) {
        driver.memory.write_slice(part, GuestAddress(at)).unwrap();
        let flags = if index == last { 0 } else { NEXT };
        driver.describe(REQUESTS, index, (at, u32::try_from(part.len()).unwrap()), (flags, index + 1));
        at += u64::try_from(part.len()).unwrap();
        index += 1;
    }
    let mut places = Vec::new();
    for (at, len) in room {
        let flags = if index == last { WRITE } else { WRITE | NEXT };
        driver.describe(REQUESTS, index, (*at, *len), (flags, index + 1));
        places.push((*at, usize::try_from(*len).unwrap()));
        index += 1;
    }
    driver.offer(REQUESTS, 0);
    driver.kick(REQUESTS);
    let (head, written) = driver.wait_used(REQUESTS);
    assert_eq!(head, 0);
    let mut answer = Vec::new();
    for (at, len) in places {
        let mut part = vec![0; len];
        driver.memory.read_slice(&mut part, GuestAddress(at)).unwrap();
        answer.extend(part);
    }
    answer.truncate(usize::try_from(written).unwrap());
    answer
}

fn read_body(offset: u64, size: u32) -> Vec<u8> {
    Put::<40>::new().u64(0).u64(offset).u32(size).pad(40).as_bytes().to_vec()
}

fn expected(offset: u64, len: u64) -> Vec<u8> {
    let hole = |at| !(HOLE..FILE_LEN - HOLE).contains(&at);
    (offset..(offset + len).min(FILE_LEN)).map(|at| if hole(at) { 0 } else { byte(at) }).collect()
}

#[test]
fn the_configuration_is_the_tag_and_one_queue() {
    let mut driver = Driver::new(Box::new(device()));
    let mut config = [0xff; 48];
    for (offset, byte) in (0x100..).zip(&mut config) {
        driver.transport.read(offset, slice::from_mut(byte));
    }
    assert_eq!(&config[..36], [&b"image"[..], &[0; 31]].concat());
    assert_eq!(config[36..], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_name_is_found() {
    let mut driver = started();
    let answer = ask(&mut driver, &message(opcode::LOOKUP, 1, b"f\0"), &[16, 128]);
    assert_eq!(answer.len(), OUT_HEADER_LEN + abi::ENTRY_LEN);
    assert_eq!(answer[..8], [144, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer[16..24], 2u64.to_le_bytes());
}

#[test]
fn contents_arrive_in_the_guests_pages_whatever_their_shape() {
    let mut driver = started();
    let shapes: [&[u32]; 5] =
        [&[16, 4096], &[16, 4096, 4096, 4096], &[16, 1, 1, 4094, 4096], &[7, 9, 5000], &[20, 100, 8192]];
    for room in shapes {
        let size = room.iter().sum::<u32>() - 16;
        for offset in [0, HOLE - 5, HOLE, HOLE + 1, 123_456, FILE_LEN - HOLE - 100, FILE_LEN - 10, FILE_LEN] {
            let answer = ask(&mut driver, &message(opcode::READ, 2, &read_body(offset, size)), room);
            assert!(answer[16..] == expected(offset, size.into()), "{room:?} at {offset}");
        }
    }
}

/// A header, four pages in a row, one apart, and a part of one.
fn in_pages() -> Vec<(u64, u32)> {
    let page = |n: u64| (HIGH_START + n * 4096, 4096);
    vec![(HIGH_START, 16), page(2), page(3), page(4), page(5), page(9), (page(11).0, 100)]
}

#[test]
fn whole_pages_of_the_data_are_mapped_and_what_is_left_of_a_read_is_copied() {
    let device = device();
    let counters = device.counters();
    let mut driver = started_with(device);
    let size = 5 * 4096 + 100;
    for offset in [HOLE, HOLE + 4096, HOLE + 8 * 4096] {
        let answer = ask_into(&mut driver, &message(opcode::READ, 2, &read_body(offset, size)), &in_pages());
        assert!(answer[16..] == expected(offset, size.into()), "at {offset}");
    }
    assert_eq!(counters.snapshot().mapped, 3 * 4 * 4096);
    let answer = ask_into(&mut driver, &message(opcode::READ, 2, &read_body(HOLE - 1, size)), &in_pages());
    assert!(answer[16..] == expected(HOLE - 1, size.into()), "between pages");
    assert_eq!(counters.snapshot().mapped, 3 * 4 * 4096);
}

/// CVE-2026-31431, CVE-2026-24834: a guest alters the pages that it and its neighbours have of one file.
#[test]
fn what_a_guest_writes_over_what_it_read_no_other_guest_and_no_host_reads() {
    let layer = layer();
    let (one, other) = (device_of(layer.try_clone().unwrap()), device_of(layer.try_clone().unwrap()));
    let counters = one.counters();
    let (mut one, mut other) = (started_with(one), started_with(other));
    let size = 5 * 4096 + 100;
    let request = message(opcode::READ, 2, &read_body(HOLE, size));
    for driver in [&mut one, &mut other] {
        assert!(ask_into(driver, &request, &in_pages())[16..] == expected(HOLE, size.into()));
    }
    assert_eq!(counters.snapshot().mapped, 4 * 4096, "what is written to are the file's own pages");
    one.memory.write_slice(&[0xee; 16 * 4096], GuestAddress(HIGH_START)).unwrap();
    let mut seen = [0; 4 * 4096];
    other.memory.read_slice(&mut seen, GuestAddress(HIGH_START + 2 * 4096)).unwrap();
    assert!(seen[..] == expected(HOLE, 4 * 4096), "by who had read it before");
    let answer = ask_into(&mut other, &request, &in_pages());
    assert!(answer[16..] == expected(HOLE, size.into()), "by who reads it now");
    layer.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen[..] == expected(HOLE, 4 * 4096), "by the host");
}

#[test]
fn a_guest_has_a_machine_map_so_much_and_no_more() {
    let mut device = device();
    let most = 3;
    device.engine.idle_mut().unwrap().mappings_left = most;
    let (most, counters) = (u64::from(most), device.counters());
    let mut driver = started_with(device);
    let request = message(opcode::READ, 2, &read_body(HOLE, 4 * 4096));
    for _ in 0..most + 2 {
        ask_into(&mut driver, &request, &in_pages()[..5]);
    }
    assert_eq!(counters.snapshot().mapped, most * 4 * 4096);
    let answer = ask_into(&mut driver, &request, &in_pages()[..5]);
    assert!(answer[16..] == expected(HOLE, 4 * 4096));
}

#[test]
fn a_read_fills_every_descriptor_of_the_ring() {
    let mut driver = started();
    let room = [&[16][..], &[1000; 125]].concat();
    let answer = ask(&mut driver, &message(opcode::READ, 2, &read_body(HOLE - 500, 125_000)), &room);
    assert!(answer[16..] == expected(HOLE - 500, 125_000));
}

#[test]
fn what_has_no_room_for_an_answer_or_no_header_is_given_back_empty() {
    let mut driver = started();
    let request = message(opcode::GETATTR, 1, &[0; 16]);
    assert_eq!(ask(&mut driver, &request, &[15]), b"");
    assert_eq!(ask(&mut driver, &request[..39], &[4096]), b"");
    assert_eq!(ask(&mut driver, &request, &[16])[4..8], (-22i32).to_le_bytes());
    assert_eq!(ask(&mut driver, &request, &[16, 104]).len(), 120);
}

#[test]
fn a_request_longer_than_any_is_refused() {
    let mut driver = started();
    let request = message(opcode::LOOKUP, 1, &[b'x'; MAX_REQUEST]);
    assert_eq!(ask(&mut driver, &request, &[16])[4..8], (-22i32).to_le_bytes());
    let request = message(opcode::WRITE, 2, &[0; 0x1_0000]);
    assert_eq!(ask(&mut driver, &request, &[16, 8])[4..8], (-30i32).to_le_bytes());
}

#[test]
fn forgetting_goes_by_its_own_queue_and_has_no_answer() {
    let mut driver = started();
    driver.memory.write_slice(&message(opcode::FORGET, 2, &[0; 8]), GuestAddress(BUFFERS)).unwrap();
    driver.describe(HIPRIO, 0, (BUFFERS, 48), (0, 0));
    driver.offer(HIPRIO, 0);
    driver.kick(HIPRIO);
    assert_eq!(driver.wait_used(HIPRIO), (0, 0));
}

#[test]
fn a_reset_ends_the_session() {
    let mut driver = started();
    driver.start();
    let answer = ask(&mut driver, &message(opcode::GETATTR, 1, &[0; 16]), &[16, 104]);
    assert_eq!(answer[4..8], (-5i32).to_le_bytes());
}

/// The length of the answer to a LOOKUP of `/f`, and its errno.
fn look_up(driver: &mut Driver) -> (usize, i32) {
    let answer = ask(driver, &message(opcode::LOOKUP, 1, b"f\0"), &[16, 128]);
    (answer.len(), i32::from_le_bytes(*answer[4..].first_chunk().unwrap()))
}

const FOUND: (usize, i32) = (OUT_HEADER_LEN + abi::ENTRY_LEN, 0);
const NO_SESSION: (usize, i32) = (OUT_HEADER_LEN, -5);

#[test]
fn a_pause_does_not_end_the_session_and_what_follows_it_may() {
    let mut driver = started();
    driver.transport.pause();
    driver.transport.resume().unwrap();
    assert_eq!(look_up(&mut driver), FOUND);
    driver.transport.pause();
    driver.start();
    driver.transport.resume().unwrap();
    assert_eq!(look_up(&mut driver), NO_SESSION);
}

#[test]
fn a_session_goes_on_with_another_server_of_the_same_files() {
    let mut driver = started();
    driver.transport.pause();
    let state = driver.transport.save().unwrap();
    let mut driver = driver.moved(Box::new(device()));
    driver.transport.restore(&state).unwrap();
    driver.transport.resume().unwrap();
    assert_eq!(look_up(&mut driver), FOUND);
    driver.start();
    assert_eq!(look_up(&mut driver), NO_SESSION);
}

#[test]
fn flags_nobody_agreed_to_are_refused() {
    let refused = device().restore(&DeviceState::Fs { session: Some(1 << 31) }).unwrap_err();
    assert_eq!(refused.to_string(), "device.session: flags this server never agrees to");
}

#[test]
fn requests_that_wait_are_all_served() {
    let mut driver = started();
    let request = message(opcode::GETATTR, 1, &[0; 16]);
    driver.memory.write_slice(&request, GuestAddress(BUFFERS)).unwrap();
    for round in 0u16..300 {
        for slot in (0..64).step_by(2) {
            driver.describe(REQUESTS, slot, (BUFFERS, 56), (NEXT, slot + 1));
            driver.describe(REQUESTS, slot + 1, (HIGH_START + 256 * u64::from(slot), 120), (WRITE, 0));
            let index = (round * 32).wrapping_add(slot / 2);
            driver.offer(REQUESTS, slot);
            if driver.avail_event(REQUESTS) == index.wrapping_add(1) {
                driver.kick(REQUESTS);
            }
        }
        for _ in 0..32 {
            assert_eq!(driver.wait_used(REQUESTS).1, 120);
        }
    }
}
