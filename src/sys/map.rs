// SPDX-License-Identifier: Apache-2.0
//! A file mapped for reading.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::ptr;
use std::slice;

/// A whole file, mapped shared and read-only: every process that maps it shares one page-cached copy.
///
/// The files mapped here are immutable (an index, a template): nobody who follows the store's rules writes or
/// truncates one in place. Somebody who does kills the process that maps it with SIGBUS, and only that.
#[derive(Debug)]
pub struct FileMap {
    start: ptr::NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned, never written through, and not tied to a thread.
unsafe impl Send for FileMap {}
// SAFETY: as above; shared reads only.
unsafe impl Sync for FileMap {}

impl FileMap {
    pub fn new(file: &File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if len == 0 {
            return Ok(Self { start: ptr::NonNull::dangling(), len });
        }
        // SAFETY: a fresh mapping at an address the kernel chooses touches no memory of ours.
        let start = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0) }?;
        let start = ptr::NonNull::new(start.cast()).ok_or(io::ErrorKind::Other)?;
        Ok(Self { start, len })
    }
}

impl AsRef<[u8]> for FileMap {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `len` are our own mapping's (or dangling and 0), which lives as long as `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping is ours and no borrow of it outlives `self`.
            // An error would mean that it is no mapping, which `new` has excluded.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}
