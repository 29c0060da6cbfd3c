// SPDX-License-Identifier: Apache-2.0
//! The 512-byte block in front of each entry (POSIX.1-1988 ustar, and what GNU made of it).

use super::{Entry, TarError, Type};
use isopod_index::Time;
use std::collections::BTreeMap;
use std::ops::Range;

pub(crate) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Format {
    /// Before POSIX: neither prefix nor device numbers.
    V7,
    Ustar,
    Gnu,
}

#[derive(Debug)]
pub(super) struct Block(pub(super) [u8; BLOCK]);

impl Block {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    /// The sum of all bytes, those of the sum itself taken as spaces; some old writers summed signed bytes.
    pub(super) fn check(&self) -> Result<(), TarError> {
        let claimed = number(&self.0[CHECKSUM]).ok_or(TarError::Header("checksum"))?;
        let bytes = self.0.iter().enumerate().map(|(n, b)| if CHECKSUM.contains(&n) { b' ' } else { *b });
        let (unsigned, signed) = bytes.fold((0i64, 0i64), |(unsigned, signed), b| {
            (unsigned + i64::from(b), signed + i64::from(i8::from_le_bytes([b])))
        });
        if claimed == unsigned || claimed == signed { Ok(()) } else { Err(TarError::Checksum) }
    }

    /// One of our own, in which nothing differs from one time to the next: no time, no owner.
    pub(super) fn plain(kind: u8, name: &str, size: u64) -> Self {
        let mut block = Self([0; BLOCK]);
        block.put(NAME, name);
        block.put(MODE, if kind == b'5' { "0000755" } else { "0000644" });
        [UID, GID, MAJOR, MINOR].into_iter().for_each(|field| block.put(field, "0000000"));
        block.put(SIZE, &format!("{size:011o}"));
        block.put(MTIME, "00000000000");
        block.put(MAGIC, "ustar\x0000");
        block.0[TYPE] = kind;
        block.sealed()
    }

    /// The same with its checksum.
    pub(super) fn sealed(mut self) -> Self {
        self.0[CHECKSUM].fill(b' ');
        let sum: u32 = self.0.iter().map(|b| u32::from(*b)).sum();
        self.put(CHECKSUM, &format!("{sum:06o}\0"));
        self
    }

    fn put(&mut self, field: Range<usize>, text: &str) {
        let len = text.len().min(field.len());
        self.0[field][..len].copy_from_slice(&text.as_bytes()[..len]);
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.0[TYPE]
    }

    pub(super) fn is_gnu(&self) -> bool {
        self.format() == Format::Gnu
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        self.unsigned(SIZE, "size")
    }

    /// All but the name, which a header before this one may have said.
    pub(super) fn entry(&self) -> Result<Entry, TarError> {
        let kind = match self.typeflag() {
            b'0' | 0 | b'7' | b'S' => Type::File,
            b'1' => Type::HardLink,
            b'2' => Type::Symlink,
            b'3' => Type::CharDevice,
            b'4' => Type::BlockDevice,
            b'5' => Type::Folder,
            b'6' => Type::Fifo,
            other => return Err(TarError::Type(other)),
        };
        let device = match self.format() {
            Format::V7 => (0, 0),
            _ => (self.small(MAJOR, "device")?, self.small(MINOR, "device")?),
        };
        let seconds = number(&self.0[MTIME]).ok_or(TarError::Header("time"))?;
        Ok(Entry {
            name: Vec::new(),
            kind,
            link: field(&self.0[LINK]).to_vec(),
            mode: u16::try_from(self.unsigned(MODE, "mode")? & 0o7777).unwrap_or(0),
            uid: self.small(UID, "owner")?,
            gid: self.small(GID, "group")?,
            mtime: Time { seconds, nanoseconds: 0 },
            device,
            xattrs: BTreeMap::new(),
            size: 0,
            pieces: None,
        })
    }

    fn format(&self) -> Format {
        match &self.0[MAGIC] {
            b"ustar  \0" => Format::Gnu,
            magic if magic.starts_with(b"ustar\0") => Format::Ustar,
            _ => Format::V7,
        }
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = field(&self.0[NAME]);
        match field(&self.0[PREFIX]) {
            prefix if self.format() == Format::Ustar && !prefix.is_empty() => [prefix, b"/", name].concat(),
            _ => name.to_vec(),
        }
    }

    fn unsigned(&self, range: Range<usize>, what: &'static str) -> Result<u64, TarError> {
        let number = number(&self.0[range]).ok_or(TarError::Header(what))?;
        // Half the range: no sum with a size can overflow.
        u64::try_from(number).ok().filter(|n| *n < 1 << 62).ok_or(TarError::Header(what))
    }

    fn small(&self, range: Range<usize>, what: &'static str) -> Result<u32, TarError> {
        u32::try_from(self.unsigned(range, what)?).map_err(|_| TarError::Header(what))
    }
}

/// Text up to the first NUL.
fn field(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]
}

/// A long name as GNU writes it: NULs at its end only.
pub(super) fn until_nul(bytes: Vec<u8>) -> Result<Vec<u8>, TarError> {
    let name = field(&bytes);
    if bytes[name.len()..].iter().any(|b| *b != 0) { Err(TarError::NulInName) } else { Ok(name.to_vec()) }
}

/// The first octal digits between spaces and NULs, or, with the first bit set, a big-endian two's complement.
pub(super) fn number(bytes: &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let start = if negative { i128::from(first & 0x7f) - 128 } else { i128::from(first & 0x7f) };
        let value = rest.iter().try_fold(start, |n, b| n.checked_mul(256)?.checked_add(i128::from(*b)));
        return value.and_then(|n| i64::try_from(n).ok());
    }
    let blank = |b: &u8| matches!(b, 0 | b' ');
    let digits = bytes.split(blank).find(|part| !part.is_empty());
    digits.unwrap_or_default().iter().try_fold(0i64, |n, b| match b {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(b - b'0')),
        _ => None,
    })
}
