// SPDX-License-Identifier: Apache-2.0
//! What a machine is. Checked by who asks for one, for the sake of the error, and again in the machine's own process.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Least guest memory in MiB: the kernel, the agent and the page tables for them.
pub const MIN_MEMORY_MIB: u32 = 32;
/// Most guest memory in MiB (1 TiB), so that no address computed from it overflows.
pub const MAX_MEMORY_MIB: u32 = 1024 * 1024;
/// As many as the guest kernel is built for (`CONFIG_NR_CPUS`).
pub const MAX_VCPUS: u8 = 16;
/// The kernel's own limit (`COMMAND_LINE_SIZE`) less its terminating zero.
pub const MAX_CMDLINE: usize = 2047;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    pub vcpus: u8,
    pub memory_mib: u32,
    /// Appended to the kernel command line the machine makes for itself.
    pub cmdline_extra: String,
    /// Whether a serial console is there; its output goes to the descriptor that comes along.
    pub console: bool,
    pub assist: Assist,
    /// The vsock port on which the host takes the guest agent's one connection.
    pub agent_port: u32,
    /// How many data files the `boot` share has.
    pub boot_layers: u16,
    /// And the `image` share; `None` for a machine that is to become a template and has none yet.
    pub image_layers: Option<u16>,
    /// Whether it is restored from a file, which comes along, instead of booted.
    pub restored: bool,
    /// Whether a list of the pages that a start touches comes along, too.
    pub touched: bool,
}

/// What the guest needs from us beyond what a processor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assist {
    /// Hardware KVM: nothing.
    None,
    /// A KVM that emulates guest-kernel code: `assist` mends what its emulator lacks.
    Emulated,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("{0} vCPUs asked for; 1 to {MAX_VCPUS} are possible")]
    Vcpus(u8),
    #[error("{0} MiB of memory asked for; {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} are possible")]
    Memory(u32),
    #[error("the kernel command line has {0} bytes; {MAX_CMDLINE} are possible")]
    CommandLine(usize),
}

impl MachineConfig {
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(ConfigError::Vcpus(self.vcpus));
        }
        if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&self.memory_mib) {
            return Err(ConfigError::Memory(self.memory_mib));
        }
        if self.cmdline_extra.len() > MAX_CMDLINE {
            return Err(ConfigError::CommandLine(self.cmdline_extra.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> MachineConfig {
        MachineConfig {
            vcpus: 1,
            memory_mib: 128,
            cmdline_extra: String::new(),
            console: false,
            assist: Assist::None,
            agent_port: 1024,
            boot_layers: 1,
            image_layers: Some(2),
            restored: false,
            touched: false,
        }
    }

    #[test]
    fn a_sound_config_passes() {
        assert_eq!(sound().check(), Ok(()));
    }

    #[test]
    fn too_little_memory_is_refused_with_the_bounds() {
        let error = MachineConfig { memory_mib: 8, ..sound() }.check().unwrap_err();
        assert!(error.to_string().contains("32 to"), "{error}");
    }

    #[test]
    fn no_vcpus_and_too_many_are_refused() {
        assert_eq!(MachineConfig { vcpus: 0, ..sound() }.check(), Err(ConfigError::Vcpus(0)));
        assert_eq!(MachineConfig { vcpus: 17, ..sound() }.check(), Err(ConfigError::Vcpus(17)));
    }
}
