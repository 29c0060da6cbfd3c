// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench`: what things cost, counted where they can be, each figure beside its target.

mod boot;
mod fleet;
mod host;
mod idle;
mod images;
mod isopod;
mod jail;
mod memory;
mod peers;
mod restore;
mod start;
mod statistics;
mod stats;
mod syscalls;
mod table;

use anyhow::Result;
use clap::Subcommand;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A cold start: time to the first KVM_RUN, guest-kernel instructions to the agent's hello, memory, sizes
    Boot(boot::Arguments),
    /// A start from a template beside a cold one, crun and runc, in turn
    Start(start::Arguments),
    /// A start with all of the jail's layers beside one with none, in turn, and a machine's memory with and without
    Jail(jail::Arguments),
    /// Time to a restored machine's first KVM_RUN, by the size of its memory
    Restore(restore::Arguments),
    /// What containers cost that do nothing: memory, exits, processor time
    Idle(idle::Arguments),
    /// Pull and unpack of a Debian image, beside skopeo and umoci, podman and containerd, in turn
    Images(images::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        What::Boot(arguments) => boot::run(arguments),
        What::Start(arguments) => start::run(arguments),
        What::Jail(arguments) => jail::run(arguments),
        What::Restore(arguments) => restore::run(arguments),
        What::Idle(arguments) => idle::run(arguments),
        What::Images(arguments) => images::run(arguments),
    }
}
