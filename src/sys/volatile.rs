// SPDX-License-Identifier: Apache-2.0
//! From a file straight into guest memory, which may change under the reader's eyes: only the kernel writes it, through
//! pointers, and no reference to it is ever made.

use libc::{c_int, c_void, iovec};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Most slices one call fills; with 4 KiB pages half a megabyte. More of them make it a short read.
const AT_ONCE: usize = 128;

/// Reads from `offset` on into `slices`, one after the other, and gives how many bytes were read. That can be fewer than
/// there is room for: at the file's end, and wherever the kernel stops; 0 with room means the end.
pub fn pread_into<B: BitmapSlice>(
    file: BorrowedFd<'_>,
    slices: &[VolatileSlice<'_, B>],
    offset: u64,
) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let slices = &slices[..slices.len().min(AT_ONCE)];
    // The guards keep the memory accessible, if it needs that at all, until the call is over.
    let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard_mut).collect();
    let mut vectors = [iovec { iov_base: ptr::null_mut(), iov_len: 0 }; AT_ONCE];
    for (vector, guard) in vectors.iter_mut().zip(&guards) {
        *vector = iovec { iov_base: guard.as_ptr().cast::<c_void>(), iov_len: guard.len() };
    }
    let count = c_int::try_from(slices.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let read = loop {
        // SAFETY: the first `count` vectors are `slices`: memory that is valid for writes of their lengths as long as
        // `slices` is borrowed, and whose users all know that it changes without them. The kernel writes nowhere else.
        let read = unsafe { libc::preadv(file.as_raw_fd(), vectors.as_ptr(), count, offset) };
        match usize::try_from(read) {
            Ok(read) => break read,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    mark_dirty(slices, read);
    Ok(read)
}

/// Tells whoever tracks writes to memory of the first `len` bytes.
fn mark_dirty<B: BitmapSlice>(slices: &[VolatileSlice<'_, B>], len: usize) {
    let mut left = len;
    for slice in slices {
        let here = left.min(slice.len());
        slice.bitmap().mark_dirty(0, here);
        left -= here;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

    fn file(bytes: &[u8]) -> File {
        let fd = memfd_create("data", MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(bytes).unwrap();
        file
    }

    fn memory() -> GuestMemoryMmap<()> {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap()
    }

    #[test]
    fn bytes_go_where_the_slices_are_and_nowhere_else() {
        let memory = memory();
        let slices =
            [(0x10, 3), (0x100, 4)].map(|(at, len)| memory.get_slice(GuestAddress(at), len).unwrap());
        assert_eq!(pread_into(file(b"0123456789").as_fd(), &slices, 1).unwrap(), 7);
        let mut seen = [0; 5];
        memory.read_slice(&mut seen, GuestAddress(0x0f)).unwrap();
        assert_eq!(seen, [0, b'1', b'2', b'3', 0]);
        memory.read_slice(&mut seen, GuestAddress(0x100)).unwrap();
        assert_eq!(seen, [b'4', b'5', b'6', b'7', 0]);
    }

    #[test]
    fn a_read_over_the_end_is_short() {
        let memory = memory();
        let slices = [memory.get_slice(GuestAddress(0), 100).unwrap()];
        let file = file(b"0123456789");
        assert_eq!(pread_into(file.as_fd(), &slices, 4).unwrap(), 6);
        assert_eq!(pread_into(file.as_fd(), &slices, 10).unwrap(), 0);
        assert_eq!(pread_into(file.as_fd(), &slices, 1 << 40).unwrap(), 0);
    }

    #[test]
    fn an_offset_no_file_can_have_is_an_error() {
        assert!(pread_into::<()>(file(b"").as_fd(), &[], u64::MAX).is_err());
    }

    #[test]
    fn more_slices_than_one_call_takes_make_a_short_read() {
        let memory = memory();
        let slices: Vec<_> = (0..200).map(|n| memory.get_slice(GuestAddress(n), 1).unwrap()).collect();
        assert_eq!(pread_into(file(&[7; 300]).as_fd(), &slices, 0).unwrap(), AT_ONCE);
    }

    #[test]
    fn no_slices_is_nothing_read() {
        assert_eq!(pread_into::<()>(file(b"x").as_fd(), &[], 0).unwrap(), 0);
    }
}
