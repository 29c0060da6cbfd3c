// SPDX-License-Identifier: Apache-2.0
//! The queue side of the file system device (§5.11): each chain is one FUSE request and the room for its answer.
//!
//! Queue 0 takes what must not wait behind reads (FORGET, §5.11.6), queue 1 everything else. Requests are copied out once
//! and then judged; contents go the other way without a copy: pages of a file are mapped over the guest's, whose page cache
//! then is the host's, and what is not whole pages is read straight into the guest's buffers.
//! A request that cannot be answered (no whole header, no room for one) is given back with nothing written.

mod calls;

use super::chain::{Broken, Chain};
use super::worker::{Engine, Handler, Port, Wake};
use super::{Bound, BoundQueue, DeviceState, GuestMemory, RestoreError, SaveError, StartError, VirtioDevice};
use isopod_fs::{Counters, FileSystem, MAX_REQUEST, Reply, Server};
use isopod_sys::confined::Closing;
use isopod_sys::seccomp::Rule;
use isopod_sys::volatile::{map_into, pread_into};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// What its thread is called.
pub(super) const THREAD: &str = "fs";
const DEVICE_ID: u32 = 26;

/// FORGETs come in flocks when the guest runs short of memory.
const HIPRIO_SIZE: u16 = 64;
/// A descriptor is a page of a READ, and four go with each request: Linux reads ahead in 32 pages, and three of those
/// fit at once. More would be memory of the guest's, and instructions to set it up.
const REQUEST_SIZE: u16 = 128;

/// Mappings one device makes; after that it reads. Each can split one in three, of which the host grants a process 65530
/// (`vm.max_map_count`) and pays 200 bytes for each: a guest must not run out of the one or up the other.
const MOST_MAPPINGS: u16 = 4096;

const TAG_LEN: usize = 36;
/// `tag[36]`, `num_request_queues` (§5.11.4). There is no notification queue, and so no `notify_buf_size`.
const CONFIG_LEN: usize = TAG_LEN + 4;

#[derive(Debug)]
pub struct Fs {
    config: [u8; CONFIG_LEN],
    counters: Arc<Counters>,
    engine: Engine<Session>,
}

#[derive(Debug)]
pub(super) struct Session {
    server: Server,
    /// Where requests are copied to.
    request: Box<[u8]>,
    mappings_left: u16,
    counters: Arc<Counters>,
}

impl Fs {
    /// A device the guest mounts by `tag`, of which at most 36 bytes count.
    pub fn new(tag: &str, files: impl FileSystem + 'static) -> Self {
        let mut config = [0; CONFIG_LEN];
        for (to, from) in config[..TAG_LEN].iter_mut().zip(tag.bytes()) {
            *to = from;
        }
        config[TAG_LEN..].copy_from_slice(&1u32.to_le_bytes());
        let server = Server::new(files);
        let counters = server.counters();
        let session = Session {
            server,
            request: vec![0; MAX_REQUEST].into_boxed_slice(),
            mappings_left: MOST_MAPPINGS,
            counters: Arc::clone(&counters),
        };
        Self { config, counters, engine: Engine::new(session) }
    }

    /// What was asked of it so far.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

impl VirtioDevice for Fs {
    fn kind(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_sizes(&self) -> &[u16] {
        &[HIPRIO_SIZE, REQUEST_SIZE]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let rest =
            usize::try_from(offset).ok().and_then(|offset| self.config.get(offset..)).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(rest) {
            *to = *from;
        }
    }

    fn man(&mut self, confined: bool) -> Result<Option<Closing>, StartError> {
        self.engine.man(THREAD, confined)
    }

    fn start(&mut self, bound: Bound) -> Result<(), StartError> {
        self.engine.start(THREAD, bound)
    }

    fn stop(&mut self) -> Vec<BoundQueue> {
        self.engine.stop()
    }

    fn reset(&mut self) {
        if let Some(session) = self.engine.idle_mut() {
            session.server.reset();
        }
    }

    fn save(&self) -> Result<DeviceState, SaveError> {
        let session = self.engine.idle().ok_or(SaveError::NotIdle)?;
        Ok(DeviceState::Fs { session: session.server.session() })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Fs { session: agreed } = state else {
            return Err(RestoreError::OTHER_DEVICE);
        };
        let session = self.engine.idle_mut().ok_or(RestoreError::NotFresh)?;
        session.server.resume(*agreed).map_err(|_| RestoreError::Field {
            field: "device.session",
            why: "flags this server never agrees to",
        })
    }
}

impl Handler for Session {
    const CALLS: &'static [Rule] = calls::CALLS;

    fn wake(&mut self, wake: Wake, port: &mut Port) -> Result<(), Broken> {
        let Wake::Kick(queue) = wake else { return Ok(()) };
        port.serve(queue, |memory, chain| self.answer(memory, chain))
    }
}

impl Session {
    /// A request longer than the buffer is cut, and refused because its length is not what its header says.
    fn answer(&mut self, memory: &GuestMemory, chain: &Chain) -> usize {
        let len = chain.read(memory, 0, &mut self.request);
        self.server.handle(
            &self.request[..len],
            &mut Answer { memory, chain, mappings_left: &mut self.mappings_left, counters: &self.counters },
        )
    }
}

/// The writable part of a chain.
struct Answer<'c> {
    memory: &'c GuestMemory,
    chain: &'c Chain,
    mappings_left: &'c mut u16,
    counters: &'c Counters,
}

impl Reply for Answer<'_> {
    fn room(&self) -> usize {
        self.chain.writable_len()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.chain.write(self.memory, at, bytes);
    }

    fn zero(&mut self, at: usize, len: usize) {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(ZEROS.len());
            self.chain.write(self.memory, at + done, &ZEROS[..piece]);
            done += piece;
        }
    }

    fn fill(&mut self, at: usize, len: usize, file: &File, offset: u64) -> io::Result<usize> {
        let slices = self.chain.writable_slices(self.memory, at, len);
        if *self.mappings_left > 0 {
            match map_into(file.as_fd(), &slices, offset) {
                Ok(0) => {}
                Ok(mapped) => {
                    *self.mappings_left -= 1;
                    self.counters.mapped(mapped);
                    return Ok(mapped);
                }
                // What cannot be mapped now will not be later; whether it can be read, reading tells.
                Err(_) => *self.mappings_left = 0,
            }
        }
        pread_into(file.as_fd(), &slices, offset)
    }
}

#[cfg(test)]
mod tests;
