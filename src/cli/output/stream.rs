// SPDX-License-Identifier: Apache-2.0
//! Much data on its way to stdout, whose reader may go away: then there is nobody left to fail.

use crate::cli::error::Failure;
use isopod_engine::EngineError;
use std::io::{self, ErrorKind, IsTerminal, Stdout, Write, stdout};

/// Stdout, and whether anybody still reads it.
#[derive(Debug)]
pub(in crate::cli) struct Stream {
    out: Stdout,
    is_closed: bool,
}

impl Stream {
    /// `None` if stdout is a terminal, which is no place for bytes.
    pub(in crate::cli) fn open() -> Option<Self> {
        let out = stdout();
        (!out.is_terminal()).then_some(Self { out, is_closed: false })
    }

    /// What came of writing all of it.
    pub(in crate::cli) fn close(self, written: Result<(), EngineError>) -> Result<(), Failure> {
        if self.is_closed { Ok(()) } else { Ok(written?) }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.is_closed |= written.as_ref().is_err_and(|e| e.kind() == ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.is_closed |= flushed.as_ref().is_err_and(|e| e.kind() == ErrorKind::BrokenPipe);
        flushed
    }
}
