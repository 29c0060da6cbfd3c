// SPDX-License-Identifier: Apache-2.0
//! The agent without a machine: serves the host at descriptor 0, with a folder for an image.
//!
//! `unshare --mount --net --pid --fork --kill-child agent-on-host IMAGE SCRATCH`: everything it mounts and starts is in these
//! namespaces and goes with them. It is what the tests run containers with.
#![expect(unsafe_code, reason = "the promise that there is one thread")]

use guest_agent::{FileSystem, Machine, run};
use isopod_sys::process::OneThread;
use isopod_sys::signal;
use rustix::fs::{Mode, mkdir};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::process::{chdir, pivot_root};
use rustix::stdio::take_stdin;
use std::env::args_os;
use std::error::Error;
use std::io::stdin;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Makes what the `boot` share is in a machine, and the image's folder at /source in it.
fn enter(image: &PathBuf, scratch: &PathBuf) -> Result<(), Box<dyn Error>> {
    mount("boot", scratch, "tmpfs", MountFlags::empty(), None)?;
    for folder in ["image", "rw", "proc", "dev", "run", "source"] {
        mkdir(scratch.join(folder), Mode::from_raw_mode(0o755))?;
    }
    mount_bind(image, scratch.join("source"))?;
    chdir(scratch)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(chdir("/")?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = args_os().skip(1).map(PathBuf::from);
    let (Some(image), Some(scratch)) = (args.next(), args.next()) else {
        return Err("IMAGE SCRATCH".into());
    };
    enter(&image, &scratch)?;
    // As a machine without a console has it: one line to the host, and no other descriptor.
    // SAFETY: no thread was started, this is the only such value, and the library's children are shallow.
    let mut one = unsafe { OneThread::assume() };
    let machine = Machine {
        image: FileSystem { source: c"/source", kind: c"", flags: MountFlags::BIND },
        killed_for_memory: || false,
    };
    one.close_all_but(stdin().as_fd())?;
    // What is ignored stays so for those who are executed: SIGPIPE by Rust's runtime, SIGINT and SIGQUIT by a shell that
    // runs the tests in the background.
    for ignored in [signal::SIGPIPE, signal::SIGINT, signal::SIGQUIT] {
        signal::default_action(ignored)?;
    }
    // SAFETY: std's handle does not own it, and nobody uses that any more.
    run(unsafe { take_stdin() }, &machine, one).map_err(|error| error.to_string().into())
}
