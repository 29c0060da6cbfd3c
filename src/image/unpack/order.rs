// SPDX-License-Identifier: Apache-2.0
//! The side of who has a layer taken apart.

use super::{NAME, Order, PIECE, Report, Worker, gone, worker};
use crate::digest::Digest;
use crate::error::{During, Result};
use crate::limits::Limits;
use isopod_jail::{self as jail, Cell, Jailed, Layers};
use isopod_sys::fdpass;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const DOING: &str = "cannot start the process that takes layers apart";

/// A worker that reads nothing for so long, or has all and says nothing, does something else than its work, on the slowest
/// disk. So does one that is waited for longer than this and for what it has moved at the slowest, all in all.
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes a second, of those it reads and those it writes.
const SLOWEST: u64 = 32 << 10;
/// It has nothing to do once it has reported: this is long enough for its end.
const LAST_BREATH: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Beside names and attributes: a zstd stream's window, buffers, what the C library keeps.
const MEMORY_BESIDE: u64 = 56 << 20;
/// Addresses that it was born with: the program, its libraries, its stack.
const PROGRAM: u64 = 256 << 20;
/// Of an index, beside what the layer has.
const FILE_BESIDE: u64 = 1 << 30;
/// Descriptors: it has three or four.
const FILES: u64 = 16;

/// Its limits bound its memory and what it writes, and its filter keeps it from starting anything: a control group would
/// add nothing but the page cache of what it writes to the account.
fn cell(layers: Layers, limits: &Limits) -> Cell {
    let data = (limits.layer_metadata as u64).saturating_add(MEMORY_BESIDE);
    let file_bytes = limits.layer_bytes.saturating_add(FILE_BESIDE);
    let addresses = Some(data.saturating_add(PROGRAM));
    Cell {
        layers,
        limits: jail::Limits { files: FILES, file_bytes, threads: 1, data, addresses },
        group: None,
    }
}

/// A layer being taken apart. Dropped before its end, so is the worker.
#[derive(Debug)]
pub(crate) struct Unpacking {
    socket: OwnedFd,
    who: Who,
    /// The worker has ended and nobody reads any more.
    deaf: bool,
    /// What it writes contents into.
    data: File,
    /// Bytes it was sent.
    sent: u64,
    /// How long it has kept us waiting.
    waited: Duration,
}

#[derive(Debug)]
enum Who {
    Process(Jailed),
    Thread(JoinHandle<io::Result<()>>),
    Gone,
}

impl Unpacking {
    /// The worker writes contents into `data` and names into `index`.
    pub(crate) fn start(worker: Worker, limits: Limits, data: &File, index: &File) -> Result<Self> {
        let (socket, who) = match worker {
            Worker::Process(layers) => {
                let jailed =
                    cell(layers, &limits).start(NAME, None).map_err(io::Error::other).during(DOING)?;
                (jailed.socket.try_clone().during(DOING)?, Who::Process(jailed))
            }
            Worker::Thread => {
                let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
                let (socket, theirs) = pair.during(DOING)?;
                (socket, Who::Thread(thread::spawn(move || worker::serve(theirs.as_fd(), || Ok(())))))
            }
        };
        let copy = data.try_clone().during(DOING)?;
        let mut unpacking = Self { socket, who, deaf: false, data: copy, sent: 0, waited: Duration::ZERO };
        for waits in [Timeout::Send, Timeout::Recv] {
            set_socket_timeout(&unpacking.socket, waits, Some(PATIENCE)).during(DOING)?;
        }
        let order = serde_json::to_vec(&Order { limits }).map_err(io::Error::from).during(DOING)?;
        let files = [data.as_fd(), index.as_fd()];
        match fdpass::send(unpacking.socket.as_fd(), &order, &files) {
            // Its jail was refused, and it has said so: that is the layer's end, not this.
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                unpacking.deaf = true;
            }
            sent => sent.during(DOING)?,
        }
        Ok(unpacking)
    }

    /// Hands all of a source over, and gives the digest of what it decompresses to; an error of the source comes first.
    /// `goes_on` hears of each piece, and ends it by saying no.
    pub(crate) fn read_all(
        mut self,
        source: &mut impl Read,
        mut goes_on: impl FnMut(usize) -> bool,
    ) -> Result<Result<Digest>> {
        let mut piece = vec![0; PIECE];
        loop {
            let n = source.read(&mut piece).during("cannot read the layer")?;
            if !goes_on(n) {
                return Ok(Err(gone("it was called off")));
            }
            if n == 0 || !self.feed(&piece[..n]) {
                return Ok(self.finish());
            }
        }
    }

    /// Some more of the layer. False once the worker wants no more: it has something to say.
    pub(super) fn feed(&mut self, piece: &[u8]) -> bool {
        if !self.deaf && !piece.is_empty() {
            let began = Instant::now();
            self.deaf = fdpass::send(self.socket.as_fd(), piece, &[]).is_err();
            self.waited += began.elapsed();
            self.sent += piece.len() as u64;
            if self.waited > PATIENCE && self.dawdles() {
                self.end();
                self.deaf = true;
            }
        }
        !self.deaf
    }

    /// Whether an honest worker would have been faster.
    fn dawdles(&self) -> bool {
        let written = self.data.metadata().map_or(0, |data| data.len());
        self.waited > patience(self.sent.saturating_add(written))
    }

    /// That was all: the digest of what it decompresses to.
    pub(super) fn finish(mut self) -> Result<Digest> {
        // A worker that is gone already has said why.
        let _ = shutdown(&self.socket, Shutdown::Write);
        let mut bytes = vec![0; PIECE];
        let said = fdpass::receive_last(self.socket.as_fd(), &mut bytes);
        if said.is_ok() {
            self.let_end();
        }
        // One that has reported, or closed its socket, and stays has been taken over.
        self.end();
        let how = self.wait();
        match said {
            Ok(n @ 1..) => {
                let report = serde_json::from_slice::<Report>(&bytes[..n]);
                report.map_err(|_| gone("it said something else than what became of the layer"))?.meaning()
            }
            _ => Err(gone(&how)),
        }
    }

    /// Waits a little for it to end by itself.
    fn let_end(&self) {
        if let Who::Process(jailed) = &self.who {
            let ended = PollFd::new(&jailed.child.pidfd, PollFlags::IN);
            let _ = retry_on_intr(|| poll(&mut [ended.clone()], Some(&LAST_BREATH)));
        }
    }

    fn end(&self) {
        if let Who::Process(jailed) = &self.who {
            let _ = jailed.child.kill();
        }
    }

    fn wait(&mut self) -> String {
        let ended = match mem::replace(&mut self.who, Who::Gone) {
            Who::Process(jailed) => jailed.child.wait().map(|status| {
                let signal = status.terminating_signal().map(|signal| format!("by signal {signal}"));
                signal.unwrap_or_else(|| format!("with code {}", status.exit_status().unwrap_or(0)))
            }),
            Who::Thread(thread) => match thread.join() {
                Ok(result) => result.map(|()| "without a word".to_owned()),
                Err(_) => Ok("in a panic".to_owned()),
            },
            Who::Gone => Ok("before".to_owned()),
        };
        ended.unwrap_or_else(|e| e.to_string())
    }
}

/// How long a worker may keep us waiting that has moved so many bytes.
fn patience(moved: u64) -> Duration {
    PATIENCE + Duration::from_secs(moved / SLOWEST)
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        self.end();
        let _ = shutdown(&self.socket, Shutdown::Both);
        self.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempfile;

    #[test]
    fn a_worker_may_keep_us_waiting_for_what_it_moves_and_no_longer() {
        let files = [tempfile().unwrap(), tempfile().unwrap()];
        let start = || {
            let mut started =
                Unpacking::start(Worker::Thread, Limits::default(), &files[0], &files[1]).unwrap();
            started.waited = PATIENCE + Duration::from_secs(10);
            started
        };
        assert!(!start().feed(&[0; 512]));
        let mut worker = start();
        worker.sent = 11 * SLOWEST;
        assert!(worker.feed(&[0; 512]));
        files[0].set_len(11 * SLOWEST).unwrap();
        assert!(start().feed(&[0; 512]));
    }
}
