// SPDX-License-Identifier: Apache-2.0
//! What a process that meets a guest's or a stranger's bytes gives up before it does. When it is captured there is
//! nothing left to take.
//!
//! ```text
//!   who starts it (`cell`)                                   the process (`enter`)
//!     a control group with limits
//!     clone: a PID namespace ─── exec, empty environment ──►  one descriptor: a socket
//!     the order, the group's files ─────────────────────────► joins the group
//!                                                             an id and a user namespace of its own
//!                                                             mount, net, ipc, uts, cgroup namespaces
//!                                                             an empty root
//!                                                             limits, no capability, not dumpable
//!                                                             no new privileges, Landlock
//!     all that it will ever have, as descriptors ───────────► its work; then a filter a thread (`seccomp`)
//! ```
//! A layer that cannot be had is an error of the start, unless it was left out by name. `observe` tells what is in force
//! from outside, by what the kernel says of the process.

#![forbid(unsafe_code)]

mod cell;
mod enter;
mod group;
mod ids;
mod landlock;
mod layers;
mod limits;
mod observe;
mod root;
mod supervisor;
mod view;

pub use cell::{Cell, Jailed, Process, StartError, Waiting, own_layers};
pub use enter::{Entered, JailError, enter};
pub use group::{GroupError, GroupLimits, Version, sweep, version};
pub use landlock::abi as landlock_abi;
pub use layers::{Layer, Layers, UnknownLayer};
pub use limits::Limits;
pub use observe::{Observation, observe};
pub use supervisor::supervise;
pub use view::View;
