// SPDX-License-Identifier: Apache-2.0
//! From a file straight into guest memory, which may change under the reader's eyes: only the kernel writes it, through
//! pointers, and no reference to it is ever made. By reading, or by mapping: then the page the host has of the file is
//! the page the guest sees, and it costs nothing until the guest writes to it.

use libc::{c_int, c_void, iovec};
use rustix::fs::fstat;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Most slices one call fills; with 4 KiB pages half a megabyte. More of them make it a short read.
const AT_ONCE: usize = 128;
/// What is mapped is made of these.
const PAGE: usize = 4096;

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

/// Maps the file's pages from `offset` on over the front of `slices`, private to this process, and gives how many bytes
/// that were: whole pages of slices that follow each other in memory. 0 if there is no such page, or not in the file; then
/// it has to be read. As with a read, what was there before is gone.
///
/// A file that is cut short later kills who touches what it no longer holds with SIGBUS.
pub fn map_into<B: BitmapSlice>(
    file: BorrowedFd<'_>,
    slices: &[VolatileSlice<'_, B>],
    offset: u64,
) -> io::Result<usize> {
    let Some(first) = slices.first() else { return Ok(0) };
    let guard = first.ptr_guard_mut();
    let start = guard.as_ptr();
    if start.addr() % PAGE != 0 || !offset.is_multiple_of(PAGE as u64) {
        return Ok(0);
    }
    let held = u64::try_from(fstat(file)?.st_size).unwrap_or(0).saturating_sub(offset);
    let len = in_a_row(slices).min(usize::try_from(held).unwrap_or(usize::MAX)) / PAGE * PAGE;
    if len == 0 {
        return Ok(0);
    }
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
    let flags = flags | MapFlags::NORESERVE;
    // SAFETY: the pages are `slices`': memory that is valid for writes, and whose users all know that it changes without
    // them. It stays memory for reading and writing, and goes when what it is a part of is unmapped.
    let mapped = unsafe { mmap(start.cast(), len, prot, flags, file, offset) };
    if mapped.is_err() {
        // What was mapped there may be gone already (mmap(2)): there must be something to read into.
        // SAFETY: as above.
        unsafe { mmap_anonymous(start.cast(), len, prot, flags) }?;
        return Ok(0);
    }
    mark_dirty(slices, len);
    Ok(len)
}

/// How many bytes from the first slice on follow each other in memory.
fn in_a_row<B: BitmapSlice>(slices: &[VolatileSlice<'_, B>]) -> usize {
    let mut len = 0;
    let mut next = None;
    for slice in slices {
        let at = slice.ptr_guard_mut().as_ptr().addr();
        if next.is_some_and(|next| next != at) {
            break;
        }
        len += slice.len();
        next = Some(at + slice.len());
    }
    len
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

    /// Pages 3, 4 and a half of 5, and page 9.
    fn pages(memory: &GuestMemoryMmap<()>) -> Vec<VolatileSlice<'_>> {
        let parts = [(0x3000, PAGE), (0x4000, PAGE), (0x5000, 100), (0x9000, PAGE)];
        parts.map(|(at, len)| memory.get_slice(GuestAddress(at), len).unwrap()).to_vec()
    }

    fn numbered(count: u8) -> File {
        file(&(0..count).flat_map(|n| [n; PAGE]).collect::<Vec<_>>())
    }

    #[test]
    fn whole_pages_in_a_row_are_mapped_and_the_rest_is_left() {
        let memory = memory();
        memory.write_slice(&[0xee; 0x10000], GuestAddress(0)).unwrap();
        assert_eq!(map_into(numbered(8).as_fd(), &pages(&memory), 4096).unwrap(), 2 * PAGE);
        let byte = |at| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
        assert_eq!(
            [0x2fff, 0x3000, 0x3fff, 0x4000, 0x4fff, 0x5000, 0x9000].map(byte),
            [0xee, 1, 1, 2, 2, 0xee, 0xee]
        );
    }

    #[test]
    fn what_is_written_to_mapped_pages_stays_out_of_the_file() {
        let (memory, file) = (memory(), numbered(2));
        map_into(file.as_fd(), &pages(&memory), 0).unwrap();
        memory.write_obj(9u8, GuestAddress(0x3000)).unwrap();
        let mut kept = [1; 1];
        rustix::io::pread(&file, &mut kept, 0).unwrap();
        assert_eq!((kept, memory.read_obj::<u8>(GuestAddress(0x3000)).unwrap()), ([0], 9));
    }

    #[test]
    fn no_page_that_the_file_does_not_hold_whole_is_mapped() {
        let memory = memory();
        let file = file(&[7; PAGE + 10]);
        assert_eq!(map_into(file.as_fd(), &pages(&memory), 0).unwrap(), PAGE);
        assert_eq!(map_into(file.as_fd(), &pages(&memory), 4096).unwrap(), 0);
        assert_eq!(map_into(file.as_fd(), &pages(&memory), 1 << 40).unwrap(), 0);
    }

    #[test]
    fn what_does_not_lie_on_pages_is_not_mapped() {
        let memory = memory();
        let ragged = [memory.get_slice(GuestAddress(0x3010), 2 * PAGE).unwrap()];
        assert_eq!(map_into(numbered(8).as_fd(), &ragged, 0).unwrap(), 0);
        assert_eq!(map_into(numbered(8).as_fd(), &pages(&memory), 512).unwrap(), 0);
        assert_eq!(map_into::<()>(numbered(1).as_fd(), &[], 0).unwrap(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_mapped_leaves_memory_to_read_into() {
        let (memory, file) = (memory(), numbered(2));
        let unreadable =
            File::options().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert_eq!(map_into(unreadable.as_fd(), &pages(&memory), 0).unwrap(), 0);
        assert_eq!(pread_into(file.as_fd(), &pages(&memory), 4096).unwrap(), PAGE);
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
