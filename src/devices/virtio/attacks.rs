// SPDX-License-Identifier: Apache-2.0
//! What a driver can have a device do for ever, or keep: measured in a process that does nothing else. The letters are
//! the rows of `docs/attacks.md`.

use super::conformance::driver::{BUFFERS, Driver, HIGH_START, WRITE, registers};
use crate::fs::Fs;
use crate::rng::Rng;
use crate::serial::Serial;
use crate::vsock::Vsock;
use isopod_fs::Nothing;
use std::env;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What a process may grow by under any flood: a few pages of stack and heap that were not touched before.
const GROWTH: usize = 1 << 20;

/// Says that this process is one test's own.
const ALONE: &str = "ISOPOD_TEST_ALONE";

/// Runs `measure` in a process with nothing else in it: what it takes and does is then all ours.
fn alone(test: &str, measure: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        return measure();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    let name = format!("virtio::attacks::{test}");
    let end = command.args(["--exact", &name, "--test-threads=1"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&end.stdout);
    assert!(
        end.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&end.stderr)
    );
}

/// Bytes that are resident now.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Clock ticks, of a hundredth of a second, that the threads of this name have had.
fn ticks(name: &str) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let stats: Vec<_> = tasks
        .filter_map(|task| fs::read_to_string(task.join("stat")).ok())
        .filter(|stat| stat.contains(&format!("({name})")))
        .collect();
    assert_eq!(stats.len(), 1, "threads called {name}");
    let fields: Vec<_> = stats[0].rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}

/// A second in which the thread hardly runs: less than a twentieth of it.
fn assert_sleeps(name: &str, why: &str) {
    let before = ticks(name);
    thread::sleep(Duration::from_secs(1));
    let took = ticks(name) - before;
    assert!(took < 5, "{took} hundredths of a second while {why}");
}

/// Runs the flood a little, so that what is kept for good is there, and then in full: the process stays as large as it was.
fn assert_does_not_grow(what: &str, mut flood: impl FnMut(u32)) {
    flood(2000);
    let before = resident();
    flood(100_000);
    let grown = resident().saturating_sub(before);
    assert!(grown <= GROWTH, "{what}: {grown} bytes more");
}

fn started(device: Box<dyn super::VirtioDevice>) -> Driver {
    let mut driver = Driver::new(device);
    driver.start();
    driver
}

/// A5 (CVE-2016-5403), A11: chains as large as memory has room for, one after the other.
#[test]
fn no_flood_of_requests_makes_a_device_grow() {
    alone("no_flood_of_requests_makes_a_device_grow", || {
        let mut rng = started(Box::new(Rng::new()));
        rng.describe(0, 0, (HIGH_START, 0x8_0000), (WRITE, 0));
        assert_does_not_grow("random numbers", |times| (0..times / 10).for_each(|_| turn(&mut rng, 0)));
        let mut files = started(Box::new(Fs::new("x", Nothing)));
        for queue in [0, 1] {
            // The whole of a region, for a request that has no end and no room for an answer.
            files.describe(queue, 0, (HIGH_START, 0x8_0000), (0, 0));
            assert_does_not_grow("requests", |times| (0..times).for_each(|_| turn(&mut files, queue)));
        }
    });
}

fn turn(driver: &mut Driver, queue: usize) {
    driver.offer(queue, 0);
    driver.kick(queue);
    driver.wait_used(queue);
}

const RX: usize = 0;
const TX: usize = 1;
const PORT: u32 = 1024;
/// Operations (§5.10.6).
const REQUEST: u16 = 1;
const DATA: u16 = 5;
const CREDIT: u16 = 6;

/// A packet's header (§5.10.6) from `src_port`, with all the room in the world.
fn header(op: u16, src_port: u32, len: u32) -> Vec<u8> {
    let words = [src_port, PORT, len, 1 | u32::from(op) << 16, 0, u32::MAX, 0];
    let cids = [3u64, 2].iter().flat_map(|cid| cid.to_le_bytes());
    cids.chain(words.iter().flat_map(|word| word.to_le_bytes())).collect()
}

/// Has the device look at a packet, if it still does.
fn send(driver: &mut Driver, header: &[u8], payload: u32) {
    driver.memory.write_slice(header, GuestAddress(HIGH_START)).unwrap();
    let len = u32::try_from(header.len()).unwrap() + payload;
    driver.describe(TX, 0, (HIGH_START, len), (0, 0));
    driver.offer(TX, 0);
    driver.kick(TX);
}

/// Posts a buffer of 4 KiB, and waits for what comes.
fn hear(driver: &mut Driver) -> (u16, u32) {
    driver.describe(RX, 0, (BUFFERS, 4096), (WRITE, 0));
    driver.offer(RX, 0);
    driver.kick(RX);
    let (_, len) = driver.wait_used(RX);
    let op: u16 = driver.memory.read_obj(GuestAddress(BUFFERS + 30)).unwrap();
    (op, len)
}

fn connected() -> (Driver, UnixStream) {
    let (host, agent) = UnixStream::pair().unwrap();
    let mut driver = started(Box::new(Vsock::new(3, PORT, agent).unwrap()));
    send(&mut driver, &header(REQUEST, 5000, 0), 0);
    assert_eq!(hear(&mut driver), (2, 44), "the connection is accepted");
    driver.wait_used(TX);
    (driver, host)
}

/// A14 (CVE-2026-23086), A13: a host that does not read, and a guest that never stops: to the end of its credit, and past it.
/// The same from a thousand ports that are nobody's.
#[test]
fn no_flood_of_packets_makes_the_socket_device_grow() {
    alone("no_flood_of_packets_makes_the_socket_device_grow", || {
        let (mut driver, _host) = connected();
        let mut ports = (6000..7023).cycle().zip([REQUEST, DATA, CREDIT, 77].into_iter().cycle());
        assert_does_not_grow("strangers", |times| {
            for (port, op) in ports.by_ref().take(times as usize / 10) {
                send(&mut driver, &header(op, port, 0), 0);
                driver.wait_used(TX);
                assert_eq!(hear(&mut driver), (3, 44), "a reset");
            }
        });
        let before = resident();
        let data = header(DATA, 5000, 32 << 10);
        for _ in 0..1000 {
            send(&mut driver, &data, 32 << 10);
            driver.wait_used(TX);
            // The reset, once it comes, and nothing after it but resets, for which there is a buffer.
            driver.describe(RX, 0, (BUFFERS, 4096), (WRITE, 0));
            driver.offer(RX, 0);
            driver.kick(RX);
            while driver.take_used(RX).is_some() {}
        }
        let grown = resident().saturating_sub(before);
        assert!(grown <= GROWTH, "{grown} bytes more for a guest that sends past its credit");
    });
}

/// A12: a host that sends to a guest without buffers, and one that has gone: nobody is waited for in circles.
#[test]
fn a_socket_that_cannot_be_served_costs_no_time() {
    alone("a_socket_that_cannot_be_served_costs_no_time", || {
        let (mut driver, mut host) = connected();
        host.set_nonblocking(true).unwrap();
        let before = resident();
        let mut sent = 0;
        while let Ok(n) = host.write(&[7; 4096]) {
            sent += n;
        }
        assert_sleeps("vsock", "the guest posts no buffers");
        assert!(resident().saturating_sub(before) <= GROWTH, "bytes that nobody takes are kept");
        // It recovers: all of it arrives.
        while sent > 0 {
            let (op, len) = hear(&mut driver);
            assert_eq!(op, DATA);
            sent -= usize::try_from(len).unwrap() - 44;
        }
        drop(host);
        assert_sleeps("vsock", "the host's end is closed and the guest posts no buffers");
    });
}

/// A7, A9: an available index that is ahead by anything: the device gives up, sleeps, and can be stopped.
#[test]
fn an_index_that_runs_away_leaves_the_device_asleep() {
    alone("an_index_that_runs_away_leaves_the_device_asleep", || {
        let mut driver = Driver::new(Box::new(Rng::new()));
        for jump in (9..=u16::MAX).step_by(31) {
            driver.start();
            driver.set_available_index(0, jump);
            driver.kick(0);
            while !driver.needs_reset() {
                thread::yield_now();
            }
            if jump % 21_000 < 31 {
                assert_sleeps("rng", "its ring is broken");
            }
            driver.stop_within(Duration::from_secs(1));
        }
        driver.start();
        assert_eq!(driver.read(registers::STATUS), 15);
    });
}

/// A reader that is never there.
struct Nobody;

impl Write for Nobody {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(ErrorKind::WouldBlock.into())
    }
}

/// A16 (CVE-2020-27174): a console that is written to, by either side, and read by neither.
#[test]
fn a_console_keeps_nothing_that_is_not_read() {
    alone("a_console_keeps_nothing_that_is_not_read", || {
        let mut serial = Serial::new(EventFd::new(EFD_NONBLOCK).unwrap(), Box::new(Nobody));
        let typed = vec![b'x'; 1 << 20];
        assert_does_not_grow("a console", |times| {
            for n in 0..times {
                serial.write(0, n.to_le_bytes()[0]);
                // 100 GiB in all, in far less memory.
                serial.input(&typed);
            }
        });
    });
}
