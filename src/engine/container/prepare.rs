// SPDX-License-Identifier: Apache-2.0
//! Everything a machine is made from, opened and checked before anything is written down.

use super::conclude::START_TIMEOUT;
use super::spec::{Console, ContainerSpec, MachineSpec};
use crate::boot;
use crate::error::{EngineError, Kind, Result};
use crate::kernel::{self, Kernel};
use crate::kvm::{self, Kvm};
use crate::machine::not_started;
use crate::sink::own_description;
use crate::stdio::Limits;
use crate::template::Templates;
use isopod_image::Image;
use isopod_jail::{Jailed, Layers, View, Waiting};
use isopod_vmm::client::{self, ShareFiles};
use isopod_vmm::config::Assist;
use rustix::io::dup;
use rustix::stdio::stderr;
use rustix::system::sysinfo;
use std::env;
use std::fs::File;
use std::time::Duration;

/// A day.
const MAX_START_TIMEOUT: u64 = 86_400;

#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) image: Image,
    /// What the boot share was opened in.
    pub(crate) view: View,
    pub(crate) kernel: Kernel,
    pub(crate) kvm: Kvm,
    pub(crate) boot: ShareFiles,
    pub(crate) console: Option<File>,
    pub(crate) vcpus: u8,
    pub(crate) memory_mib: u32,
    pub(crate) limits: Limits,
    /// The machine's process, which is on its way into it.
    pub(crate) process: Jailed,
}

/// Starts the process of a machine like this one. It comes to its jail while everything else is looked up.
pub(crate) fn spawn(spec: &ContainerSpec, layers: Layers, waiting: Option<Waiting>) -> Result<Jailed> {
    let layers = layers.without(spec.security.unjailed);
    let cell = client::cell(layers, spec.machine.memory.mib(), spec.machine.vcpus.count());
    client::spawn(&cell, waiting).map_err(not_started)
}

pub(crate) fn prepare(
    image: Image,
    process: Jailed,
    spec: &ContainerSpec,
    templates: &Templates,
) -> Result<Prepared> {
    let kernel = kernel::find(spec.machine.kernel.as_deref())?;
    let kvm = kvm::open(templates.run_root())?;
    check_host(&spec.machine, &kvm)?;
    let (boot, view) = boot::share(templates.data_root())?;
    let console = match &spec.machine.console {
        None => None,
        Some(Console::Stderr) => {
            // Its own description, which does not wait: whoever stops reading stderr must not stop the guest.
            let copy = own_description(stderr()).or_else(|_| dup(stderr()));
            Some(File::from(copy.map_err(EngineError::io("cannot give stderr to the console"))?))
        }
        Some(Console::File(path)) => {
            let made = File::create(path);
            Some(made.map_err(EngineError::io(format!("cannot write the console to {}", path.display())))?)
        }
    };
    let limits = limits(kvm.host.assist)?;
    let (vcpus, memory_mib) = (spec.machine.vcpus.count(), spec.machine.memory.mib());
    Ok(Prepared { image, view, kernel, kvm, boot, console, vcpus, memory_mib, limits, process })
}

pub(crate) fn check_host(machine: &MachineSpec, kvm: &Kvm) -> Result<()> {
    let info = sysinfo();
    let has = info.totalram.saturating_mul(info.mem_unit.into());
    let (memory, vcpus) = (machine.memory, machine.vcpus.count());
    if memory.bytes() > has {
        let what = format!("{} MiB of memory asked for; this host has {}", memory.mib(), has / 1024 / 1024);
        return Err(EngineError::new(Kind::Unavailable, what).hint("ask for less with -m"));
    }
    if u64::from(vcpus) > kvm.host.max_vcpus {
        let what = format!("{vcpus} CPUs asked for; this KVM has {} for a machine", kvm.host.max_vcpus);
        return Err(EngineError::new(Kind::Unavailable, what).hint("ask for fewer with --cpus"));
    }
    Ok(())
}

/// The deadlines for this kind of KVM, unless the user knows better.
pub(crate) fn limits(assist: Assist) -> Result<Limits> {
    let (start, signal) = match assist {
        Assist::None => (20, 10),
        Assist::Emulated => (240, 60),
    };
    let start = match env::var(START_TIMEOUT) {
        Ok(asked) => seconds(&asked)?,
        Err(_) => start,
    };
    Ok(Limits { start: Duration::from_secs(start), signal: Duration::from_secs(signal) })
}

fn seconds(asked: &str) -> Result<u64> {
    let seconds = asked.trim().parse().ok().filter(|seconds| (1..=MAX_START_TIMEOUT).contains(seconds));
    seconds.ok_or_else(|| {
        EngineError::new(Kind::Invalid, format!("{START_TIMEOUT}={asked:?} is not a number of seconds"))
            .hint(format!("1 to {MAX_START_TIMEOUT}, without a unit"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_timeout_is_a_number_of_seconds_that_a_clock_can_reach() {
        assert_eq!(seconds(" 30 ").unwrap(), 30);
        for bad in ["0", "20s", "-1", "", "18446744073709551615"] {
            let error = seconds(bad).unwrap_err();
            assert!(error.kind() == Kind::Invalid && error.to_string().contains(START_TIMEOUT), "{bad}");
        }
    }
}
