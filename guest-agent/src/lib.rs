// SPDX-License-Identifier: Apache-2.0
//! Pid 1 of the guest: it calls the host, is told one container, starts it, and carries its streams until it ends.
//!
//! ```text
//!   Connected ──Start──► Starting ──process runs──► Running ──process ends──► Draining ──streams at their end──► Done
//!   (hello sent)            └────────────────────────── it could not ──────────────────────────────────────────►──┘
//!       ▲                                             │ ▲
//!       └─ Prepare, at the mailbox                    └─┘ Freeze, at the mailbox, Thaw
//!            in every state: the host hangs up ──► the machine is switched off;  the host talks nonsense ──► likewise
//! ```
//!
//! One thread, one loop around `poll`, and as few system calls as will do: on a KVM that emulates, each costs the
//! guest up to a millisecond. Some consequences that would look odd elsewhere:
//! - descriptors that exec or exit will close anyway are not closed by hand;
//! - pipes are read and written with `RWF_NOWAIT`, so that nobody has to make them non-blocking first;
//! - the container's process is made with `CLONE_VM | CLONE_VFORK`, so that no page is copied and an error needs no pipe;
//! - mounts are made from inside the container's root, by plain paths: a symlink in the image can only lead to somewhere in the image.
//!
//! Built for size and without a dynamic linker:
//! `RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" cargo build --package guest-agent
//! --profile agent --target x86_64-unknown-linux-gnu`.
#![forbid(unsafe_code)]

mod agent;
mod child;
mod credentials;
mod devices;
mod exec;
mod failure;
mod freezer;
mod hide;
mod init;
mod life;
mod link;
pub mod machine;
mod places;
mod prepared;
mod root;
mod start;
mod streams;
mod terminal;
mod users;

pub use agent::{Broken, run};
pub use root::FileSystem;

/// What differs between a guest and a test.
#[derive(Debug)]
pub struct Machine {
    /// Where the image's files come from.
    pub image: FileSystem,
    /// Whether the kernel has killed for want of memory since the container began.
    pub killed_for_memory: fn() -> bool,
}
