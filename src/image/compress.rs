// SPDX-License-Identifier: Apache-2.0
//! Plain, gzip or zstd: told by the first bytes, whatever a media type or a file name says.

use crate::limits::ZSTD_WINDOW_LOG;
use flate2::bufread::MultiGzDecoder;
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::rc::Rc;
use zstd::stream::read::Decoder as ZstdDecoder;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A zstd stream may begin with a frame to be skipped: 0x184d2a50 to 5f.
const ZSTD_SKIP: [u8; 3] = [0x2a, 0x4d, 0x18];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Gzip,
    Zstd,
}

impl Form {
    pub(crate) fn of(start: &[u8]) -> Self {
        if start.starts_with(&GZIP) {
            Self::Gzip
        } else if start.starts_with(&ZSTD)
            || (start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == ZSTD_SKIP)
        {
            Self::Zstd
        } else {
            Self::Plain
        }
    }
}

/// A stream, decompressed as its first bytes ask for; concatenated members and frames are one stream.
pub(crate) enum Plain<R: Read> {
    As(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<ZstdDecoder<'static, BufReader<R>>>),
}

impl<R: Read> Plain<R> {
    pub(crate) fn new(inner: R) -> io::Result<Self> {
        let mut inner = BufReader::with_capacity(128 << 10, inner);
        Ok(match Form::of(peek(&mut inner)?) {
            Form::Plain => Self::As(inner),
            Form::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(inner))),
            Form::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(inner)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    pub(crate) fn into_inner(self) -> R {
        match self {
            Self::As(inner) => inner.into_inner(),
            Self::Gzip(inner) => inner.into_inner().into_inner(),
            Self::Zstd(inner) => inner.finish().into_inner(),
        }
    }
}

/// The first bytes: a buffer's worth, so that a short first read does not hide a magic number.
fn peek<R: Read>(inner: &mut BufReader<R>) -> io::Result<&[u8]> {
    loop {
        match inner.fill_buf() {
            Ok(_) => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(inner.buffer())
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::As(inner) => inner.read(buf),
            Self::Gzip(inner) => inner.read(buf),
            Self::Zstd(inner) => inner.read(buf),
        }
    }
}

/// An error when more than so many bytes come through.
#[derive(Debug)]
pub(crate) struct AtMost<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R> AtMost<R> {
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit, limit }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for AtMost<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(ErrorKind::FileTooLarge, format!("more than the {} bytes allowed", self.limit))
        })?;
        Ok(n)
    }
}

/// How many bytes came through a `Metered`, for whoever holds a copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Rc<Cell<u64>>);

impl Meter {
    pub(crate) fn count(&self) -> u64 {
        self.0.get()
    }
}

#[derive(Debug)]
pub(crate) struct Metered<R> {
    inner: R,
    meter: Meter,
}

impl<R> Metered<R> {
    pub(crate) fn new(inner: R, meter: Meter) -> Self {
        Self { inner, meter }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.meter.0.set(self.meter.0.get() + n as u64);
        Ok(n)
    }
}
