// SPDX-License-Identifier: Apache-2.0
//! Black-box tests: they drive the built binary, and nothing in them is a stand-in. Each machine is a real one.
//!
//! A guest's kernel takes seconds to boot where KVM emulates, so a test asks one container as much as reads well.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

mod support;

mod archives;
mod chaos;
mod command_line;
mod confinement;
mod disk_full;
mod distribution_image;
mod exit_codes;
mod failures;
mod guest_ends;
mod hostile_agent;
mod hostile_guest;
mod hostile_images;
mod identity;
mod image_commands;
mod image_tree;
mod inside;
mod interoperation;
mod jail;
mod jail_calls;
mod jail_engine;
mod killing;
mod machine_process;
mod memory;
mod platforms;
mod power_cuts;
mod registry;
mod security_defaults;
mod signals;
mod snapshots;
mod stdio;
mod store_kills;
mod templates;
mod terminal;
mod timings;
mod unpacking;
