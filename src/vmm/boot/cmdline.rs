// SPDX-License-Identifier: Apache-2.0
//! The kernel command line the machine makes for itself.

use crate::arch::layout;
use crate::config::{Assist, MachineConfig};

/// For every machine: the root is the `boot` share, pid 1 the agent; a panic ends the machine at once, and a reset goes
/// through the port that `power` watches. `noreplace-smp` and `no_timer_check` spare work that tells us nothing here.
const ALWAYS: &str = "root=boot rootfstype=virtiofs ro init=/agent panic=-1 reboot=k noreplace-smp no_timer_check \
                      random.trust_cpu=on tsc=reliable";
/// The emulator of an emulating KVM lacks these; and repeated moves by byte are its slowest way to copy.
/// SYSCALL arrives at the kernel's entry as a fault there, which our kernel mends when told to.
const EMULATED: &str =
    "clearcpuid=smap,smep,popcnt,erms,fsrm,xsavec,xsaves,xsaveopt,xgetbv1,cx16 isopod.syscall_fixup=1";
const QUIET: &str = "quiet loglevel=0";
const CONSOLE: &str = "console=ttyS0 8250.nr_uarts=1 loglevel=7";

/// The command line of a machine with `devices` virtio-mmio devices and `open` MiB of memory before it asks for more.
///
/// `tsc_khz` spares the kernel a calibration for which there is neither a PIT nor an HPET to measure against.
pub(crate) fn build(config: &MachineConfig, devices: u32, tsc_khz: u32, open: u32) -> String {
    let mut line = ALWAYS.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut add = |words: &str| {
        line.push(' ');
        line.push_str(words);
    };
    add(if config.console { CONSOLE } else { QUIET });
    if config.assist == Assist::Emulated {
        add(EMULATED);
    }
    add(&format!("tsc_early_khz={tsc_khz}"));
    if open < config.memory_mib {
        add(&format!("isopod.open={open}"));
    }
    for device in 0..devices {
        let at = layout::VIRTIO_MMIO + u64::from(device) * layout::VIRTIO_MMIO_SIZE;
        add(&format!("virtio_mmio.device=4K@{at:#x}:{}", layout::VIRTIO_IRQ + device));
    }
    if !config.cmdline_extra.is_empty() {
        add(&config.cmdline_extra);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_its_window_and_line() {
        let config = MachineConfig {
            vcpus: 1,
            memory_mib: 64,
            cmdline_extra: "isopod.test".into(),
            console: false,
            assist: Assist::None,
            agent_port: 1024,
            boot_layers: 1,
            image_layers: None,
            restored: false,
            touched: false,
        };
        let line = build(&config, 2, 2_600_000, 64);
        assert!(
            line.contains("virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6"),
            "{line}"
        );
        assert!(line.ends_with(" isopod.test") && !line.contains("clearcpuid"), "{line}");
        assert!(!line.contains("isopod.open"), "{line}");
        assert!(build(&config, 2, 2_600_000, 48).contains(" isopod.open=48 "));
    }
}
