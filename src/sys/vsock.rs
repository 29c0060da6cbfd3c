// SPDX-License-Identifier: Apache-2.0
//! vsock: sockets between a guest and its host, which rustix has no addresses for.

use libc::{sockaddr_vm, socklen_t};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};

/// The host, as a guest calls it.
pub const HOST: u32 = libc::VMADDR_CID_HOST;

/// A stream to `port` of `cid`; waits until it is accepted or refused. The descriptor is close-on-exec and blocks.
pub fn connect(cid: u32, port: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: it is integers and bytes, for which zero is a value.
    let mut address: sockaddr_vm = unsafe { zeroed() };
    address.svm_family =
        libc::sa_family_t::try_from(libc::AF_VSOCK).map_err(|_| io::ErrorKind::InvalidInput)?;
    address.svm_cid = cid;
    address.svm_port = port;
    let len = socklen_t::try_from(size_of::<sockaddr_vm>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `len` bytes at `address`, which has them.
    match unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}
