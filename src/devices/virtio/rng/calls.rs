// SPDX-License-Identifier: Apache-2.0
//! What the entropy device's thread asks of the kernel.

use isopod_sys::seccomp::{Rule, allow};

pub(super) const CALLS: &[Rule] = &[allow(libc::SYS_getrandom, "what the guest asks for")];
