// SPDX-License-Identifier: Apache-2.0
//! Archives for tests, well formed or not.

use super::header::Block;

/// An archive being written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn file(self, name: &str, contents: &[u8]) -> Self {
        self.header(b'0', name, "", contents.len() as u64).raw(contents)
    }

    pub(crate) fn folder(self, name: &str) -> Self {
        self.header(b'5', name, "", 0)
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.header(b'2', name, target, 0)
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.header(b'1', name, target, 0)
    }

    pub(crate) fn header(self, kind: u8, name: &str, link: &str, size: u64) -> Self {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        for (at, text) in [(100, "0000644"), (108, "0000001"), (116, "0000002"), (136, "00000000100")] {
            block[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        if size < 1 << 33 {
            block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        } else {
            block[124] = 0x80;
            block[128..136].copy_from_slice(&size.to_be_bytes());
        }
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        self.block(block)
    }

    /// A header as given, but for its checksum.
    pub(crate) fn block(mut self, block: [u8; 512]) -> Self {
        self.bytes.extend_from_slice(&Block(block).sealed().0);
        self
    }

    /// Extended records for the next header.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest;
            while len.to_string().len() + rest != len {
                len = len.to_string().len() + rest;
            }
            body.extend_from_slice(format!("{len} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.header(b'x', "PaxHeader", "", body.len() as u64).raw(&body)
    }

    /// Contents, padded to a block.
    pub(crate) fn raw(mut self, contents: &[u8]) -> Self {
        self.bytes.extend_from_slice(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}
