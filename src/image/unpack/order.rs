// SPDX-License-Identifier: Apache-2.0
//! The side of who has a layer taken apart.

use super::{NAME, Order, PIECE, Report, Worker, gone, worker};
use crate::digest::Digest;
use crate::error::{During, Result};
use crate::limits::Limits;
use isopod_jail::{self as jail, Cell, Jailed, Layers};
use isopod_sys::fdpass;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const DOING: &str = "cannot start the process that takes layers apart";

/// A worker that reads nothing for so long, or has all and says nothing, does something else than its work, on the slowest
/// disk.
const PATIENCE: Duration = Duration::from_secs(300);

/// Beside names and attributes: a zstd stream's window, buffers, what the C library keeps.
const MEMORY_BESIDE: u64 = 56 << 20;
/// Of an index, beside what the layer has.
const FILE_BESIDE: u64 = 1 << 30;
/// Descriptors: it has three or four.
const FILES: u64 = 16;

/// Its limits bound its memory and what it writes, and its filter keeps it from starting anything: a control group would
/// Addresses that it was born with: the program, its libraries, its stack.
const PROGRAM: u64 = 256 << 20;
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
        let unpacking = match worker {
            Worker::Process(layers) => {
                let jailed =
                    cell(layers, &limits).start(NAME, None).map_err(io::Error::other).during(DOING)?;
                let socket = jailed.socket.try_clone().during(DOING)?;
                Self { socket, who: Who::Process(jailed), deaf: false }
            }
            Worker::Thread => {
                let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
                let (socket, theirs) = pair.during(DOING)?;
                let who = Who::Thread(thread::spawn(move || worker::serve(theirs.as_fd(), || Ok(()))));
                Self { socket, who, deaf: false }
            }
        };
        for waits in [Timeout::Send, Timeout::Recv] {
            set_socket_timeout(&unpacking.socket, waits, Some(PATIENCE)).during(DOING)?;
        }
        let order = serde_json::to_vec(&Order { limits }).map_err(io::Error::from).during(DOING)?;
        let files = [data.as_fd(), index.as_fd()];
        fdpass::send(unpacking.socket.as_fd(), &order, &files).during(DOING)?;
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
            self.deaf = fdpass::send(self.socket.as_fd(), piece, &[]).is_err();
        }
        !self.deaf
    }

    /// That was all: the digest of what it decompresses to.
    pub(super) fn finish(mut self) -> Result<Digest> {
        // A worker that is gone already has said why.
        let _ = shutdown(&self.socket, Shutdown::Write);
        let mut bytes = vec![0; PIECE];
        let said = fdpass::receive_last(self.socket.as_fd(), &mut bytes);
        if said.is_err() {
            self.end();
        }
        let how = self.wait();
        match said {
            Ok((n, _)) if n > 0 => {
                let report = serde_json::from_slice::<Report>(&bytes[..n]);
                report.map_err(|_| gone("it said something else than what became of the layer"))?.meaning()
            }
            _ => Err(gone(&how)),
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

impl Drop for Unpacking {
    fn drop(&mut self) {
        self.end();
        let _ = shutdown(&self.socket, Shutdown::Both);
        self.wait();
    }
}
