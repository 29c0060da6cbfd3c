// SPDX-License-Identifier: Apache-2.0
//! What a file system's thread asks of the kernel: it reads files that are open. It opens none and knows no path.

use isopod_sys::seccomp::{Rule, UNCOUNTED, When, allow, allow_when, allow_when_both};

pub(super) const CALLS: &[Rule] = &[
    allow(libc::SYS_preadv, "contents, into the guest's buffers"),
    allow(libc::SYS_fstat, "how long a file is that pages are mapped of"),
    allow_when_both(
        libc::SYS_mmap,
        [When::Lacks(2, libc::PROT_EXEC.cast_unsigned()), When::Lacks(3, UNCOUNTED)],
        "pages of a file, over the guest's",
    ),
    allow_when(
        libc::SYS_madvise,
        When::Is(2, libc::MADV_POPULATE_READ.cast_unsigned()),
        "MADV_POPULATE_READ: those pages, all at once",
    ),
];
