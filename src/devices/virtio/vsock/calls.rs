// SPDX-License-Identifier: Apache-2.0
//! What the socket device's thread asks of the kernel: it passes bytes on over one socket, which it has.

use isopod_sys::seccomp::{Rule, When, allow, allow_when};

pub(super) const CALLS: &[Rule] = &[
    allow(libc::SYS_shutdown, "one side has said all"),
    allow_when(libc::SYS_mmap, When::Lacks(2, EXECUTABLE), "room for what the host does not take at once"),
    allow(libc::SYS_mremap, "more room"),
    allow(libc::SYS_munmap, "less"),
];

/// PROT_EXEC.
const EXECUTABLE: u32 = 4;
