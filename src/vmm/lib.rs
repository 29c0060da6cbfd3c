// SPDX-License-Identifier: Apache-2.0
//! One virtual machine in one process: memory, vCPUs, interrupts, bus and boot. Nothing else in the tree touches KVM.
//!
//! ```text
//!   the engine's process                         the machine's process ("isopod-vmm")
//!   ┌────────────────────┐   config and        ┌──────────────────────────────────────────┐
//!   │ client::start ─────┼── descriptors ────► │ process → assemble → machine ─► crew     │
//!   │ client::Machine ◄──┼── events ────────── │   (boot, or saved)      └─► bus ─► devices │
//!   └────────────────────┘   (SEQPACKET)       └──────────────────────────────────────────┘
//! ```
//!
//! The machine's process is a re-exec of the running binary. It opens nothing by path: what it may touch arrives as
//! descriptors. It lives as long as both the guest and the engine's end of the socket do, and no longer.

pub mod client;
pub mod config;
pub mod envelope;
pub mod host;
pub mod process;
pub mod wire;

mod arch;
mod assemble;
mod assist;
mod boot;
mod bus;
pub mod calls;
mod crew;
mod machine;
mod mailbox;
mod memory;
mod power;
mod raw;
mod saved;
mod slots;
pub mod touched;
mod vcpu;

pub use client::Machine;
pub use config::{Assist, MachineConfig};
pub use wire::{Counters, End, Event};
