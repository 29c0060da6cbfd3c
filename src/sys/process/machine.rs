// SPDX-License-Identifier: Apache-2.0
//! What the first process of a machine does to the machine: entropy, the loopback.

use libc::{c_int, c_short, c_ulong};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `_IOW('R', 0x03, int[2])`.
const RNDADDENTROPY: c_ulong = 0x4008_5203;
/// `_IO('R', 0x07)`.
const RNDRESEEDCRNG: c_ulong = 0x5207;
/// Most bytes taken at once; the kernel's pool holds half of that.
const MOST_ENTROPY: usize = 64;

#[repr(C)]
struct PoolInfo {
    bits: c_int,
    bytes: c_int,
    data: [u8; MOST_ENTROPY],
}

/// Adds bytes that nobody else knows to the kernel's pool, by way of /dev/urandom, counts each as eight bits, and has the
/// generator begin anew from the pool: a copy of this machine has the same pool, and must not give the same numbers.
pub fn add_entropy(random: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let bytes = &bytes[..bytes.len().min(MOST_ENTROPY)];
    let len = c_int::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut info = PoolInfo { bits: len * 8, bytes: len, data: [0; MOST_ENTROPY] };
    info.data[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: for this request the kernel reads two ints and as many bytes as the second says, which are there.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) };
    if added != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this request has no argument.
    match unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Brings the loopback interface up, which also gives it 127.0.0.1. Any socket will do to ask with.
pub fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an ifreq is integers, bytes and a pointer that this request does not use.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = c_short::try_from(libc::IFF_UP).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: for this request the kernel reads an ifreq.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
