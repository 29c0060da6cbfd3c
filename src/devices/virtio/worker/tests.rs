// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::virtio::conformance::driver::{BUFFERS, Driver, NEXT, WRITE};
use crate::virtio::{DeviceState, RestoreError, SaveError, VirtioDevice};
use isopod_sys::confined::Closing;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// Gives every chain back, and counts; tells of what it watches.
#[derive(Debug)]
struct Probe {
    served: Arc<AtomicUsize>,
    watched: Option<UnixStream>,
    heard: Sender<u32>,
}

impl Handler for Probe {
    const CALLS: &'static [Rule] = &[];

    fn begin(&mut self, port: &mut Port) -> Result<(), Broken> {
        if let Some(stream) = &self.watched {
            port.watch(stream, 77, EventSet::IN).map_err(|_| Broken::Wait)?;
        }
        Ok(())
    }

    fn wake(&mut self, wake: Wake, port: &mut Port) -> Result<(), Broken> {
        match wake {
            Wake::Kick(queue) => port.serve(queue, |_, _| {
                self.served.fetch_add(1, Ordering::SeqCst);
                0
            }),
            Wake::Ready { token, .. } => {
                let _ = self.heard.send(token);
                let stream = self.watched.as_ref().ok_or(Broken::Wait)?;
                port.unwatch(stream).map_err(|_| Broken::Wait)
            }
        }
    }
}

#[derive(Debug)]
struct Device {
    name: &'static str,
    engine: Engine<Probe>,
}

impl VirtioDevice for Device {
    fn kind(&self) -> u32 {
        42
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16, 256]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn man(&mut self, confined: bool) -> Result<Option<Closing>, StartError> {
        self.engine.man(self.name, confined)
    }

    fn start(&mut self, bound: Bound) -> Result<(), StartError> {
        self.engine.start(self.name, bound)
    }

    fn stop(&mut self) -> Vec<BoundQueue> {
        self.engine.stop()
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<DeviceState, SaveError> {
        Ok(DeviceState::Rng)
    }

    fn restore(&mut self, _state: &DeviceState) -> Result<(), RestoreError> {
        Ok(())
    }
}

struct Bench {
    driver: Driver,
    served: Arc<AtomicUsize>,
    heard: Receiver<u32>,
}

fn bench(name: &'static str, watched: Option<UnixStream>) -> Bench {
    let served = Arc::default();
    let (sender, heard) = mpsc::channel();
    let probe = Probe { served: Arc::clone(&served), watched, heard: sender };
    let driver = Driver::new(Box::new(Device { name, engine: Engine::new(probe) }));
    Bench { driver, served, heard }
}

/// State and ticks of processor time of the threads of this name.
fn threads(name: &str) -> Vec<(String, u64)> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let stats = tasks.filter_map(|task| fs::read_to_string(task.join("stat")).ok());
    stats
        .filter(|stat| stat.contains(&format!("({name})")))
        .map(|stat| {
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            let ticks = |n: usize| fields[n].parse::<u64>().unwrap();
            (fields[0].to_owned(), ticks(11) + ticks(12))
        })
        .collect()
}

#[test]
fn a_broken_ring_puts_the_worker_to_sleep_and_leaves_it_to_be_stopped() {
    let mut bench = bench("probe-broken", None);
    bench.driver.start();
    bench.driver.describe(0, 0, (BUFFERS, 1), (NEXT, 0));
    bench.driver.offer(0, 0);
    bench.driver.kick(0);
    let started = Instant::now();
    while !bench.driver.needs_reset() && started.elapsed() < Duration::from_secs(10) {
        thread::yield_now();
    }
    let before = threads("probe-broken");
    for _ in 0..100 {
        bench.driver.kick(0);
        bench.driver.kick(1);
        thread::sleep(Duration::from_millis(1));
    }
    let after = threads("probe-broken");
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_eq!(after[0].0, "S");
    assert!(after[0].1 <= before[0].1 + 1, "{before:?} {after:?}");
    bench.driver.stop_within(Duration::from_secs(1));
    assert_eq!(threads("probe-broken").len(), 1, "it waits for the next driver");
    drop(bench);
    while !threads("probe-broken").is_empty() && started.elapsed() < Duration::from_secs(20) {
        thread::yield_now();
    }
    assert!(threads("probe-broken").is_empty());
}

#[test]
fn one_busy_queue_does_not_starve_the_other_or_a_stop() {
    let mut bench = bench("probe-busy", None);
    bench.driver.start();
    bench.driver.describe(0, 0, (BUFFERS, 1), (WRITE, 0));
    bench.driver.describe(1, 0, (BUFFERS, 1), (WRITE, 0));
    for _ in 0..1000 {
        for queue in [0, 1] {
            bench.driver.offer(queue, 0);
            bench.driver.kick(queue);
        }
        bench.driver.wait_used(1);
        bench.driver.wait_used(0);
    }
    bench.driver.stop_within(Duration::from_secs(1));
    assert_eq!(bench.served.load(Ordering::SeqCst), 2000);
}

#[test]
fn chains_that_were_there_before_the_start_are_served() {
    let mut bench = bench("probe-early", None);
    bench.driver.negotiate();
    bench.driver.set_up_queues();
    bench.driver.describe(0, 0, (BUFFERS, 1), (WRITE, 0));
    bench.driver.offer(0, 0);
    bench.driver.write(0x70, 15);
    bench.driver.wait_used(0);
}

#[test]
fn a_descriptor_of_the_devices_own_wakes_it() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut bench = bench("probe-watch", Some(theirs));
    bench.driver.start();
    assert!(bench.heard.recv_timeout(Duration::from_millis(20)).is_err());
    (&ours).write_all(b"x").unwrap();
    assert_eq!(bench.heard.recv_timeout(Duration::from_secs(10)), Ok(77));
}

#[test]
fn a_device_that_runs_cannot_be_started_again() {
    let mut bench = bench("probe-twice", None);
    bench.driver.start();
    bench.driver.write(0x70, 15);
    bench.driver.describe(0, 0, (BUFFERS, 1), (WRITE, 0));
    bench.driver.offer(0, 0);
    bench.driver.kick(0);
    bench.driver.wait_used(0);
    assert_eq!(threads("probe-twice").len(), 1);
}
