// SPDX-License-Identifier: Apache-2.0
//! What a machine knows besides its memory, as it lies in an envelope.
//!
//! An envelope's digest says that these are the bytes that were written; still nothing in them is believed to fit: KVM
//! judges the processors' state, the transports judge their own, and addresses are looked up like a guest's.

use crate::arch::state::VcpuState;
use crate::config::MachineConfig;
use crate::envelope::{self, Envelope, OpenError};
use crate::mailbox::Mailbox;
use isopod_devices::virtio::TransportState;
use kvm_bindings::kvm_irqchip;
use serde::{Deserialize, Serialize};
use std::fs::File;
use thiserror::Error;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MachineState {
    /// The first is the boot processor's.
    pub(crate) vcpus: Vec<VcpuState>,
    pub(crate) chips: Vec<kvm_irqchip>,
    /// In the order of their windows.
    pub(crate) devices: Vec<TransportState>,
    /// Where the agent waits, if it does.
    pub(crate) mailbox: Option<Mailbox>,
    /// How many MiB of its memory it had asked for.
    pub(crate) open: u32,
}

#[derive(Debug, Error)]
pub(crate) enum SavedError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the machine's state cannot be decoded")]
    Decode(#[from] postcard::Error),
    #[error("of {memory} MiB of memory {open} are said to be in use")]
    InUse { memory: u32, open: u32 },
    #[error("it has {saved} {what}, and {wanted} are asked for")]
    Differs { what: &'static str, saved: u64, wanted: u64 },
}

/// A machine's file, opened and held against what is asked for.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) envelope: Envelope,
    pub(crate) state: MachineState,
}

pub(crate) fn open(file: &File, config: &MachineConfig) -> Result<Saved, SavedError> {
    let envelope = envelope::open(file)?;
    let state: MachineState = postcard::from_bytes(&envelope.state)?;
    let saved = Saved { envelope, state };
    saved.same("vCPUs", saved.state.vcpus.len() as u64, u64::from(config.vcpus))?;
    saved.same("bytes of memory", saved.envelope.memory_len, u64::from(config.memory_mib) << 20)?;
    let (memory, open) = (config.memory_mib, saved.state.open);
    if open == 0 || open > memory {
        return Err(SavedError::InUse { memory, open });
    }
    Ok(saved)
}

impl Saved {
    pub(crate) fn same(&self, what: &'static str, saved: u64, wanted: u64) -> Result<(), SavedError> {
        if saved == wanted { Ok(()) } else { Err(SavedError::Differs { what, saved, wanted }) }
    }
}
