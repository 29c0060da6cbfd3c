// SPDX-License-Identifier: Apache-2.0
//! The worker's side: one layer, from a socket into two files.

use super::{NAME, Order, PIECE, Report, calls};
use crate::data::DataError;
use crate::digest::Digest;
use crate::error::{During, ImageError, Kind, Result};
use crate::layers::{self, Cause, LayerError};
use crate::limits::Limits;
use isopod_index::BuildError;
use isopod_jail::JailError;
use isopod_sys::fdpass;
use isopod_sys::seccomp::allow_only;
use rustix::thread::set_name;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

/// The whole life of a worker's process. Its standard input is the socket.
pub fn main() -> ExitCode {
    // Otherwise it would be called after the link it was executed by.
    let _ = set_name(NAME);
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let served = match isopod_jail::enter(socket.as_fd()) {
        Ok(Some(jail)) => {
            serve(socket.as_fd(), || if jail.filters() { allow_only(calls::CALLS) } else { Ok(()) })
        }
        Ok(None) => Ok(()),
        Err(e) => refuse(socket.as_fd(), &e),
    };
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says which layer of its jail cannot be had.
fn refuse(socket: BorrowedFd<'_>, error: &JailError) -> io::Result<()> {
    let words = format!("{error}: {}; ISOPOD_JAIL=no-{} goes without", error.source, error.layer);
    let without = ImageError::new(Kind::Io, "no layer is taken apart without its jail")
        .because(io::Error::other(words));
    fdpass::send(socket, &serde_json::to_vec(&Report::refused(&without))?, &[])
}

/// Takes an order, then does it behind closed doors. An error is one of the socket: there is nobody to tell.
pub(super) fn serve(socket: BorrowedFd<'_>, close: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut bytes = vec![0; PIECE];
    let (n, files) = fdpass::receive(socket, &mut bytes)?;
    let order: Order = serde_json::from_slice(&bytes[..n])?;
    let [data, index] = <[OwnedFd; 2]>::try_from(files).map_err(|_| io::ErrorKind::InvalidData)?;
    let source = Pieces { socket, piece: bytes, at: 0, end: 0 };
    let result = close()
        .during("cannot close the jail of the process that takes layers apart")
        .and_then(|()| take_apart(source, File::from(data), File::from(index), &order.limits));
    let report = match result {
        Ok(diff_id) => Report::Unpacked { diff_id },
        Err(error) => Report::refused(&error),
    };
    fdpass::send(socket, &serde_json::to_vec(&report)?, &[])
}

fn take_apart(source: impl Read, data: File, index: File, limits: &Limits) -> Result<Digest> {
    let data = BufWriter::with_capacity(128 << 10, data);
    let (unpacked, _) = layers::unpack(source, data, limits).map_err(refused)?;
    flush(unpacked.data)?;
    let mut index = BufWriter::with_capacity(128 << 10, index);
    unpacked.tree.write(&mut index).map_err(|e| from_build(&e).because(e))?;
    flush(index)?;
    Ok(unpacked.diff_id)
}

fn flush(mut out: BufWriter<File>) -> Result<()> {
    out.flush().during("cannot write a file of the store")
}

fn refused(error: LayerError) -> ImageError {
    let kind = match &error.cause {
        Cause::Data(DataError::Write(_)) => Kind::Io,
        Cause::Tree(e) => from_build(e).kind(),
        Cause::Data(DataError::Bomb { .. }) | Cause::OverBudget(_) | Cause::TooManySteps => Kind::TooLarge,
        _ => Kind::Invalid,
    };
    ImageError::new(kind, "its archive is refused").because(error)
}

pub(crate) fn from_build(error: &BuildError) -> ImageError {
    let kind = match error {
        BuildError::Io(_) => Kind::Io,
        BuildError::TooLarge { .. } | BuildError::TooManyEntries | BuildError::TooManyLayers { .. } => {
            Kind::TooLarge
        }
        _ => Kind::Invalid,
    };
    ImageError::new(kind, "cannot make the index")
}

/// A layer as it arrives.
struct Pieces<'a> {
    socket: BorrowedFd<'a>,
    piece: Vec<u8>,
    at: usize,
    end: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end {
            (self.at, self.end) = (0, fdpass::receive_words(self.socket, &mut self.piece)?);
        }
        let n = buf.len().min(self.end - self.at);
        buf[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
