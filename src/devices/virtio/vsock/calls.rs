// SPDX-License-Identifier: Apache-2.0
//! What the socket device's thread asks of the kernel: it passes bytes on over one socket, which it has.

use isopod_sys::seccomp::{Rule, allow};

pub(super) const CALLS: &[Rule] = &[
    allow(libc::SYS_sendto, "what the host did not take at once"),
    allow(libc::SYS_shutdown, "one side has said all"),
];
