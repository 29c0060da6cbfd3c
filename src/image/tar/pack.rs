// SPDX-License-Identifier: Apache-2.0
//! Writing archives: files and folders with short names of our own, and the same bytes for the same contents.

use super::header::{BLOCK, Block};
use std::io::{self, ErrorKind, Read, Write};

/// The first size that a header's eleven octal digits cannot say; from there on a PAX record says it.
const OCTAL_END: u64 = 1 << 33;

/// An archive being written.
#[derive(Debug)]
pub(crate) struct Packer<W> {
    out: W,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    pub(crate) fn folder(&mut self, name: &str) -> io::Result<()> {
        self.header(b'5', name, 0)
    }

    /// A file of so many bytes of what can be read; an error if these are fewer.
    pub(crate) fn file(&mut self, name: &str, size: u64, contents: impl Read) -> io::Result<()> {
        if size >= OCTAL_END {
            let record = pax("size", size);
            self.header(b'x', name, record.len() as u64)?;
            self.contents(record.len() as u64, record.as_bytes())?;
        }
        self.header(b'0', name, if size < OCTAL_END { size } else { 0 })?;
        self.contents(size, contents)
    }

    /// The end, and where the archive went.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn header(&mut self, kind: u8, name: &str, size: u64) -> io::Result<()> {
        self.out.write_all(&Block::plain(kind, name, size).0)
    }

    fn contents(&mut self, size: u64, contents: impl Read) -> io::Result<()> {
        if io::copy(&mut contents.take(size), &mut self.out)? < size {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        io::copy(&mut io::repeat(0).take(padding), &mut self.out)?;
        Ok(())
    }
}

/// A record of an extended header: its own length, which counts itself, key and value.
fn pax(key: &str, value: u64) -> String {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len();
    while len.to_string().len() + rest.len() != len {
        len = len.to_string().len() + rest.len();
    }
    format!("{len}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Archive, Type};

    #[test]
    fn what_is_packed_is_what_is_read() {
        let mut pack = Packer::new(Vec::new());
        pack.folder("a/").unwrap();
        pack.file("a/b", 5, &b"hello, and more"[..]).unwrap();
        pack.file("c", 0, io::empty()).unwrap();
        let bytes = pack.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut archive = Archive::new(&bytes[..]);
        let mut found = Vec::new();
        while let Some(entry) = archive.next_entry().unwrap() {
            found.push((entry.name, entry.kind, entry.size, entry.mtime.seconds));
        }
        let expected = [("a/", Type::Folder, 0), ("a/b", Type::File, 5), ("c", Type::File, 0)];
        assert_eq!(found, expected.map(|(name, kind, size)| (name.as_bytes().to_vec(), kind, size, 0)));
    }

    #[test]
    fn a_size_beyond_octal_digits_is_said_in_a_record() {
        let size = 9 << 30;
        let mut pack = Packer::new(Vec::new());
        assert!(pack.file("big", size, &b"cut short"[..]).is_err());
        let mut archive = Archive::new(&pack.out[..]);
        assert_eq!(archive.next_entry().unwrap().unwrap().size, size);
    }

    #[test]
    fn a_records_length_counts_itself() {
        assert_eq!(pax("size", 1), "9 size=1\n");
        assert_eq!(pax("size", 12), "11 size=12\n");
        assert_eq!(pax("size", 9 << 30), "19 size=9663676416\n");
    }
}
