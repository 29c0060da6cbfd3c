// SPDX-License-Identifier: Apache-2.0
//! What differs between processor architectures, behind the same names: `layout`, `tables`, `start`, `cpuid`.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;
