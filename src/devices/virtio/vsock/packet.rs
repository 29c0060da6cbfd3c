// SPDX-License-Identifier: Apache-2.0
//! Packet headers (virtio 1.3 §5.10.6), to and from the 44 bytes they are in guest memory.
//!
//! A header is what its sender says: reading one checks nothing. What the numbers may be is decided where they
//! matter: addresses by the muxer, operations by the connection, lengths by both.

/// Bytes of a header: `struct virtio_vsock_hdr`.
pub(super) const HEADER_LEN: usize = 44;

/// The host's address.
pub(super) const HOST_CID: u64 = 2;

/// A reliable byte stream, the one type of socket there is here (§5.10.6.4).
pub(super) const TYPE_STREAM: u16 = 1;

/// What a packet is for (§5.10.6, the `op` field).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
    Unknown(u16),
}

impl From<u16> for Op {
    fn from(number: u16) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => Self::Unknown(number),
        }
    }
}

impl From<Op> for u16 {
    fn from(op: Op) -> Self {
        match op {
            Op::Request => 1,
            Op::Response => 2,
            Op::Reset => 3,
            Op::Shutdown => 4,
            Op::Data => 5,
            Op::CreditUpdate => 6,
            Op::CreditRequest => 7,
            Op::Unknown(number) => number,
        }
    }
}

/// `flags` of a SHUTDOWN: its sender will receive no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// `flags` of a SHUTDOWN: its sender will send no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of payload that follow.
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: Op,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut fields = Fields(bytes);
        Self {
            src_cid: u64::from_le_bytes(fields.next()),
            dst_cid: u64::from_le_bytes(fields.next()),
            src_port: u32::from_le_bytes(fields.next()),
            dst_port: u32::from_le_bytes(fields.next()),
            len: u32::from_le_bytes(fields.next()),
            kind: u16::from_le_bytes(fields.next()),
            op: u16::from_le_bytes(fields.next()).into(),
            flags: u32::from_le_bytes(fields.next()),
            buf_alloc: u32::from_le_bytes(fields.next()),
            fwd_cnt: u32::from_le_bytes(fields.next()),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        out[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        out[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        out[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        out[24..28].copy_from_slice(&self.len.to_le_bytes());
        out[28..30].copy_from_slice(&self.kind.to_le_bytes());
        out[30..32].copy_from_slice(&u16::from(self.op).to_le_bytes());
        out[32..36].copy_from_slice(&self.flags.to_le_bytes());
        out[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        out[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        out
    }

    /// The RST that answers this packet for a flow nobody here has (§5.10.6.2: source and destination swapped).
    ///
    /// It goes to `guest` whatever source the packet claimed; a RST is never answered.
    pub(super) fn refusal(&self, guest: u64) -> Option<Self> {
        (self.op != Op::Reset).then_some(Self {
            src_cid: self.dst_cid,
            dst_cid: guest,
            src_port: self.dst_port,
            dst_port: self.src_port,
            len: 0,
            kind: self.kind,
            op: Op::Reset,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        })
    }
}

/// Takes fields off the front of a header; the widths of `struct virtio_vsock_hdr` add up to its length.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the fields add up to HEADER_LEN");
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_is_the_same_after_there_and_back(bytes: [u8; 32], rest: [u8; 12]) {
            let mut whole = [0; HEADER_LEN];
            whole[..32].copy_from_slice(&bytes);
            whole[32..].copy_from_slice(&rest);
            prop_assert_eq!(Header::parse(&whole).encode(), whole);
        }
    }

    #[test]
    fn fields_lie_where_the_specification_has_them() {
        let mut bytes = [0; HEADER_LEN];
        for (n, byte) in (0u8..).zip(&mut bytes) {
            *byte = n;
        }
        let header = Header::parse(&bytes);
        assert_eq!(header.src_cid, 0x07_06_05_04_03_02_01_00);
        assert_eq!(header.len, 0x1b_1a_19_18);
        assert_eq!(header.kind, 0x1d_1c);
        assert_eq!(header.op, Op::Unknown(0x1f_1e));
        assert_eq!(header.fwd_cnt, 0x2b_2a_29_28);
    }

    #[test]
    fn a_reset_is_not_answered() {
        let mut header = Header::parse(&[0; HEADER_LEN]);
        header.op = Op::Reset;
        assert_eq!(header.refusal(3), None);
    }
}
