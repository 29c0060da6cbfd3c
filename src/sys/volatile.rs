// SPDX-License-Identifier: Apache-2.0
//! From a file straight into guest memory, which may change under the reader's eyes: only the kernel writes it, through
//! pointers, and no reference to it is ever made. By reading, or by mapping: then the page the host has of the file is
//! the page the guest sees, and it costs nothing until the guest writes to it.

use libc::{c_int, c_void, iovec};
use rustix::fs::fstat;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Most slices one call fills; with 4 KiB pages half a megabyte. More of them make it a short read.
const AT_ONCE: usize = 128;
/// What is mapped is made of these.
const PAGE: usize = 4096;
/// For less than this a mapping costs more than it saves: system calls, and a record in the kernel for each.
const WORTHWHILE: usize = 4 * PAGE;

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
/// that were: whole pages of slices that follow each other in memory, at least `WORTHWHILE` of them. 0 if there are not
/// so many, or not in the file: then they have to be read. As with a read, what was there before is gone; so it is if this
/// fails, and there is memory to read into.
///
/// The pages are in memory when this returns. They can be lost later: who touches one that a shortened file no longer
/// holds is killed with SIGBUS.
pub fn map_into<B: BitmapSlice>(
    file: BorrowedFd<'_>,
    slices: &[VolatileSlice<'_, B>],
    offset: u64,
) -> io::Result<usize> {
    let Some(first) = slices.first() else { return Ok(0) };
    let guard = first.ptr_guard_mut();
    let start = guard.as_ptr().cast();
    let row = in_a_row(slices) / PAGE * PAGE;
    if row < WORTHWHILE || guard.as_ptr().addr() % PAGE != 0 || !offset.is_multiple_of(PAGE as u64) {
        return Ok(0);
    }
    let held = u64::try_from(fstat(file)?.st_size).unwrap_or(0).saturating_sub(offset);
    let len = row.min(usize::try_from(held).unwrap_or(usize::MAX)) / PAGE * PAGE;
    if len == 0 {
        return Ok(0);
    }
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
    let flags = flags | MapFlags::NORESERVE;
    // SAFETY: the pages are `slices`': memory that is valid for writes, and whose users all know that it changes without
    // them. It stays memory for reading and writing, and goes when what it is a part of is unmapped.
    let mapped = unsafe { mmap(start, len, prot, flags, file, offset) };
    // Here and not where they are touched, a page that cannot be had is an error.
    let present = mapped.map_err(io::Error::from).and_then(|_| populate(slices, len, false));
    if let Err(error) = present {
        // What was there may be gone (mmap(2)), or have nothing behind it. If this fails, too, reading will say so.
        // SAFETY: as above.
        let _ = unsafe { mmap_anonymous(start, len, prot, flags) };
        return Err(error);
    }
    mark_dirty(slices, len);
    Ok(len)
}

/// Has the pages of the first `len` bytes that `slices` have in a row mapped now, for reading or as copies to write to.
pub fn populate<B: BitmapSlice>(
    slices: &[VolatileSlice<'_, B>],
    len: usize,
    written: bool,
) -> io::Result<()> {
    let advice = if written { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
    let Some(first) = slices.first() else { return Ok(()) };
    let (guard, len) = (first.ptr_guard_mut(), len.min(in_a_row(slices)));
    // SAFETY: the pages are of memory that `slices` borrow; what they hold stays as it is.
    unsafe { madvise(guard.as_ptr().cast(), len, advice) }.map_err(Into::into)
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
    use rustix::io::{pread, pwrite};
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

    /// Pages 3 to 7 and a part of 8, and page 12.
    fn pages(memory: &GuestMemoryMmap<()>) -> Vec<VolatileSlice<'_>> {
        let parts = [(0x3000, 2 * PAGE), (0x5000, 3 * PAGE), (0x8000, 100), (0xc000, PAGE)];
        memory.write_slice(&[0xee; 0x10000], GuestAddress(0)).unwrap();
        parts.map(|(at, len)| memory.get_slice(GuestAddress(at), len).unwrap()).to_vec()
    }

    /// So many pages, each full of its number.
    fn numbered(count: u8) -> File {
        file(&(0..count).flat_map(|n| [n; PAGE]).collect::<Vec<_>>())
    }

    fn bytes<const N: usize>(memory: &GuestMemoryMmap<()>, at: [u64; N]) -> [u8; N] {
        at.map(|at| memory.read_obj::<u8>(GuestAddress(at)).unwrap())
    }

    #[test]
    fn whole_pages_in_a_row_are_mapped_and_the_rest_is_left() {
        let (memory, file) = (memory(), numbered(8));
        assert_eq!(map_into(file.as_fd(), &pages(&memory), 4096).unwrap(), 5 * PAGE);
        let there = [0x2fff, 0x3000, 0x3fff, 0x4000, 0x7fff, 0x8000, 0xc000];
        assert_eq!(bytes(&memory, there), [0xee, 1, 1, 2, 5, 0xee, 0xee]);
        // It is the file's page, and not a copy.
        pwrite(&file, &[77], 4096).unwrap();
        assert_eq!(bytes(&memory, [0x3000, 0x3001]), [77, 1]);
    }

    #[test]
    fn what_is_written_to_mapped_pages_stays_out_of_the_file() {
        let (memory, file) = (memory(), numbered(5));
        assert_eq!(map_into(file.as_fd(), &pages(&memory), 0).unwrap(), 5 * PAGE);
        memory.write_obj(9u8, GuestAddress(0x3000)).unwrap();
        let mut kept = [1; 1];
        pread(&file, &mut kept, 0).unwrap();
        assert_eq!((kept, bytes(&memory, [0x3000])), ([0], [9]));
    }

    #[test]
    fn no_page_that_the_file_does_not_hold_whole_is_mapped() {
        let memory = memory();
        let file = file(&[7; 4 * PAGE + 10]);
        assert_eq!(map_into(file.as_fd(), &pages(&memory), 0).unwrap(), 4 * PAGE);
        assert_eq!(bytes(&memory, [0x6fff, 0x7000]), [7, 0xee]);
        for offset in [4 * PAGE as u64, 1 << 40] {
            assert_eq!(map_into(file.as_fd(), &pages(&memory), offset).unwrap(), 0);
        }
    }

    #[test]
    fn what_is_no_row_of_pages_is_not_mapped() {
        let memory = memory();
        let slice = |at, len| memory.get_slice(GuestAddress(at), len).unwrap();
        let (ragged, apart) = ([slice(0x3010, 5 * PAGE)], [slice(0x3000, PAGE), slice(0x5000, 5 * PAGE)]);
        assert_eq!(map_into(numbered(8).as_fd(), &ragged, 0).unwrap(), 0);
        assert_eq!(map_into(numbered(8).as_fd(), &apart, 0).unwrap(), 0);
        assert_eq!(map_into(numbered(8).as_fd(), &pages(&memory), 512).unwrap(), 0);
        assert_eq!(map_into::<()>(numbered(1).as_fd(), &[], 0).unwrap(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_mapped_leaves_memory_to_read_into() {
        let (memory, file) = (memory(), numbered(6));
        let unreadable =
            File::options().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert!(map_into(unreadable.as_fd(), &pages(&memory), 0).is_err());
        let slice = [memory.get_slice(GuestAddress(0x3000), 5 * PAGE).unwrap()];
        assert!(map_into(unreadable.as_fd(), &slice, 0).is_err());
        assert_eq!(bytes(&memory, [0x3000, 0x7fff]), [0, 0]);
        assert_eq!(pread_into(file.as_fd(), &slice, 4096).unwrap(), 5 * PAGE);
        assert_eq!(bytes(&memory, [0x3000, 0x7fff]), [1, 5]);
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
