// SPDX-License-Identifier: Apache-2.0
//! The system calls std and rustix lack, with safe faces: where `unsafe` lives.
//!
//! A safe function here never relies on its caller's good behaviour; what a caller could get wrong is a type or an error.
#![expect(unsafe_code, reason = "this is where it lives")]

pub mod confined;
pub mod fdpass;
pub mod heap;
pub mod mailbox;
pub mod map;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod unnamed;
#[cfg(feature = "guest-memory")]
pub mod volatile;
pub mod vsock;
