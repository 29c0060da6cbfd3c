// SPDX-License-Identifier: Apache-2.0
//! Pid 1 of the guest: what the kernel executes, and what it meets there. Everything else is the library.
//!
//! There is no `fn main`: Rust's runtime would look at descriptors, set signal actions and map a signal stack before it,
//! a dozen system calls that pid 1 has no use for.
#![no_main]
#![expect(unsafe_code, reason = "the entry, and the promise that there is one thread")]

use guest_agent::{FileSystem, Machine, machine};
use isopod_protocol::AGENT_PORT;
use isopod_sys::process::OneThread;
use isopod_sys::vsock;
use rustix::mount::MountFlags;
use std::ffi::{c_char, c_int};
use std::panic;

/// The C library's `main`.
// SAFETY: the name is the one that the C library calls, with these arguments, and nothing else here has it.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    panic::set_hook(Box::new(|info| machine::report(&info.to_string())));
    // SAFETY: this process has just begun and starts no thread, this is the only such value, and what the library runs in
    // children is shallow: its deepest frames are the file system calls.
    let one = unsafe { OneThread::assume() };
    let guest = Machine {
        image: FileSystem { source: c"image", kind: c"virtiofs", flags: MountFlags::RDONLY },
        killed_for_memory: machine::killed_for_memory,
    };
    let ended = vsock::connect(vsock::HOST, AGENT_PORT)
        .map_err(guest_agent::Broken::Connect)
        .and_then(|socket| guest_agent::run(socket, &guest, one));
    if let Err(error) = ended {
        machine::report(&error.to_string());
    }
    machine::power_off()
}
