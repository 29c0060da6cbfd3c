// SPDX-License-Identifier: Apache-2.0
//! Messages with descriptors over a unix SEQPACKET socket: how one process gives another what it may touch.

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Most descriptors in one message; the kernel's own limit (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// Sends one message, whole or not at all.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more descriptors than one message takes"));
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptors do not fit"));
    }
    let sent = retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives one message and its descriptors (close-on-exec); 0 bytes mean that the other end is gone.
pub fn receive(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    whole(got.flags).map(|()| (got.bytes, fds))
}

/// Receives one message from somebody who has no descriptors to give: if some come along it is an error, and the kernel keeps
/// them out of this process.
pub fn receive_words(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let mut control = RecvAncillaryBuffer::default();
    let got = retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    whole(got.flags).map(|()| got.bytes)
}

/// The same from somebody who may have ended without reading all that was sent: that is told first, once, in the place of his
/// last words.
pub fn receive_last(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    match receive_words(socket, buf) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => receive_words(socket, buf),
        result => result,
    }
}

fn whole(flags: ReturnFlags) -> io::Result<()> {
    match flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let file = File::open("/proc/self/comm").unwrap();
        send(a.as_fd(), b"hello", &[file.as_fd()]).unwrap();
        let mut buf = [0; 16];
        let (n, fds) = receive(b.as_fd(), &mut buf).unwrap();
        let mut text = String::new();
        File::from(fds.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!((&buf[..n], text.is_empty()), (&b"hello"[..], false));
    }

    #[test]
    fn a_descriptor_where_none_is_due_is_an_error_and_gone() {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (theirs, peer) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        send(a.as_fd(), b"words", &[theirs.as_fd()]).unwrap();
        send(a.as_fd(), b"words", &[]).unwrap();
        drop(theirs);
        let mut buf = [0; 16];
        assert!(receive_words(b.as_fd(), &mut buf).is_err());
        // Its last copy was the one in the message.
        assert_eq!(receive_words(peer.as_fd(), &mut buf).unwrap(), 0);
        assert_eq!(receive_words(b.as_fd(), &mut buf).unwrap(), 5);
    }

    #[test]
    fn a_message_larger_than_the_buffer_is_an_error_not_a_part() {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        send(a.as_fd(), &[7; 100], &[]).unwrap();
        assert!(receive(b.as_fd(), &mut [0; 10]).is_err());
    }
}
