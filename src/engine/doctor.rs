// SPDX-License-Identifier: Apache-2.0
//! `doctor`: whether this host can run containers, and what to do if it can't.

mod risks;

use crate::Options;
use crate::boot::{AGENT, AGENT_HASH};
use crate::error::EngineError;
use crate::hex::hex;
use crate::images::demo_size;
use crate::kernel;
use crate::kvm;
use crate::machine::without;
use isopod_jail::{Layer, Layers, Version, own_layers};
use isopod_vmm::client;
use isopod_vmm::config::Assist;
use isopod_vmm::host::{self, DEVICE, ProbeError};
use rustix::fs::{Access, access, statvfs};
use rustix::system::{sysinfo, uname};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Good,
    /// It works, but.
    Notice,
    /// Containers can't run.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

const MIB: u64 = 1024 * 1024;
/// Below this a machine of default size and the host are short of memory.
const LOW_MEMORY: u64 = 512 * MIB;
const LOW_DISK: u64 = 1024 * MIB;

/// Looks at everything. Nothing is changed but that the data root is made if it is missing.
pub fn examine(options: &Options, kernel: Option<&Path>) -> Vec<Check> {
    let mut checks = vec![version(), host_kernel()];
    checks.extend(kvm_checks());
    checks.extend([
        guest_kernel(kernel),
        agent(),
        demo(),
        data_root(&options.data_root),
        control_groups(),
        jail(options.unjailed),
        risks::look(Path::new("/")),
        memory(),
    ]);
    checks
}

fn check(name: &'static str, verdict: Verdict, found: impl Into<String>) -> Check {
    Check { name, verdict, found: found.into(), cure: None }
}

impl Check {
    fn cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }

    fn failed(name: &'static str, error: &EngineError) -> Self {
        let mut found = error.to_string();
        let mut cause = error.source();
        while let Some(e) = cause {
            found = format!("{found}: {e}");
            cause = e.source();
        }
        Self { cure: error.advice().map(str::to_owned), ..check(name, Verdict::Bad, found) }
    }
}

fn version() -> Check {
    let protocol = isopod_protocol::VERSION;
    check("isopod", Verdict::Good, format!("{} (agent protocol {protocol})", env!("CARGO_PKG_VERSION")))
}

fn host_kernel() -> Check {
    let name = uname();
    let text = format!("{} {}", name.release().to_string_lossy(), name.machine().to_string_lossy());
    match name.machine().to_bytes() {
        b"x86_64" => check("host kernel", Verdict::Good, text),
        _ => check("host kernel", Verdict::Bad, text).cure("isopod needs an x86_64 host"),
    }
}

fn kvm_checks() -> Vec<Check> {
    let file = match host::open() {
        Ok(file) => file,
        Err(error) => return vec![Check::failed("kvm", &kvm::unusable(error))],
    };
    let opened = check("kvm", Verdict::Good, format!("{DEVICE} opens for reading and writing"));
    match host::probe(&file) {
        Ok(found) => {
            let api = format!("version {}, up to {} vCPUs a machine", found.api_version, found.max_vcpus);
            let kind = match found.assist {
                Assist::None => check("kvm kind", Verdict::Good, format!("{}; needs no assist", kvm::kind_of(&found))),
                Assist::Emulated => check(
                    "kvm kind",
                    Verdict::Notice,
                    format!(
                        "{}: needs the emulation assist (INT3, FWAIT, XSAVE, XRSTOR), processor features cleared, and \
                         SYSCALL mended by the guest's kernel",
                        kvm::kind_of(&found)
                    ),
                )
                .cure("guest-kernel code runs some 1000 times slower here; hardware KVM has none of this"),
            };
            vec![opened, check("kvm api", Verdict::Good, api), kind]
        }
        Err(error @ ProbeError::Version(_)) => vec![opened, Check::failed("kvm api", &kvm::unusable(error))],
        Err(error) => vec![opened, Check::failed("kvm kind", &kvm::unusable(error))],
    }
}

fn guest_kernel(named: Option<&Path>) -> Check {
    let found = match kernel::find(named) {
        Ok(found) => found,
        Err(error) => return Check::failed("guest kernel", &error),
    };
    match identify(&found.file) {
        Ok((release, hash)) => {
            let release = release.unwrap_or_else(|| "of unknown version".to_owned());
            check(
                "guest kernel",
                Verdict::Good,
                format!("{release}, {}, sha256:{hash}", found.path.display()),
            )
        }
        Err(e) => check("guest kernel", Verdict::Bad, format!("cannot read {}: {e}", found.path.display()))
            .cure(kernel::CURE),
    }
}

const BANNER: &[u8] = b"Linux version ";

/// The version in the kernel's banner, and the first half of its SHA-256.
fn identify(mut file: &File) -> io::Result<(Option<String>, String)> {
    let mut hash = Sha256::new();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    hash.update(&bytes);
    let hash = hex(&hash.finalize()[..16]);
    let release = bytes.windows(BANNER.len()).position(|w| w == BANNER).map(|at| {
        let rest = bytes[at + BANNER.len()..].iter().take(64).take_while(|b| b.is_ascii_graphic());
        rest.map(|b| char::from(*b)).collect()
    });
    Ok((release, hash))
}

fn agent() -> Check {
    match AGENT.len() {
        0 => check("guest agent", Verdict::Bad, "none is embedded")
            .cure("build isopod again, without ISOPOD_AGENT"),
        size => check("guest agent", Verdict::Good, format!("embedded, {size} bytes, sha256:{AGENT_HASH}")),
    }
}

fn demo() -> Check {
    match demo_size() {
        0 => check("demo image", Verdict::Notice, "none is embedded")
            .cure("run `cargo xtask rootfs` and build again"),
        size => check("demo image", Verdict::Good, format!("embedded, {size} bytes: `isopod run demo`")),
    }
}

fn data_root(path: &Path) -> Check {
    let name = "data root";
    let cure = "name another folder with --data-root or $ISOPOD_DATA_ROOT";
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    let usable = made.and_then(|()| Ok(access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?));
    if let Err(e) = usable {
        return check(name, Verdict::Bad, format!("{} cannot be written: {e}", path.display())).cure(cure);
    }
    let free = statvfs(path).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
    let found = format!("{}, {} MiB free", path.display(), free / MIB);
    match free {
        0..LOW_DISK => check(name, Verdict::Notice, found).cure(format!("make room, or {cure}")),
        _ => check(name, Verdict::Good, found),
    }
}

fn control_groups() -> Check {
    let name = "control groups";
    match isopod_jail::version() {
        Some(Version::One) => check(name, Verdict::Good, "version 1, with memory, pids and cpu"),
        Some(Version::Two) => check(name, Verdict::Good, "version 2, with memory, pids and cpu"),
        None if own_layers().has(Layer::ControlGroup) => {
            check(name, Verdict::Bad, "none with memory, pids and cpu under /sys/fs/cgroup")
                .cure(without(Layer::ControlGroup))
        }
        None => check(name, Verdict::Notice, "none with memory, pids and cpu; without root none is used"),
    }
}

/// Tries the jail that a machine is started in: a process enters it, and ends.
fn jail(unjailed: Layers) -> Check {
    let name = "jail";
    let all = own_layers().without(unjailed);
    let (mut layers, mut missing) = (all, Vec::new());
    loop {
        match client::try_jail(layers) {
            Ok(()) => break,
            Err((Some(layer), why)) if layers.has(layer) => {
                missing.push(format!("{layer}: {why}"));
                layers = layers.without(Layers::NONE | layer);
            }
            Err((_, why)) => return check(name, Verdict::Bad, why).cure("containers cannot be started"),
        }
    }
    let has: Vec<&str> = layers.iter().map(Layer::name).collect();
    let landlock = isopod_jail::landlock_abi().map(|abi| format!(" (Landlock is version {abi})"));
    let found = format!("{}{}", has.join(", "), landlock.unwrap_or_default());
    if !missing.is_empty() {
        let names: Vec<String> = Layer::ALL
            .iter()
            .filter(|l| all.has(**l) && !layers.has(**l))
            .map(|l| format!("no-{l}"))
            .collect();
        let cure = format!(
            "ISOPOD_JAIL={} goes without; user namespaces are as many as user.max_user_namespaces says",
            names.join(",")
        );
        return check(name, Verdict::Bad, format!("{}; there are {found}", missing.join("; "))).cure(cure);
    }
    if all == Layers::all() {
        return check(name, Verdict::Good, found);
    }
    let out: Vec<&str> = Layers::all().without(all).iter().map(Layer::name).collect();
    check(name, Verdict::Notice, format!("{found}; not {}", out.join(", ")))
        .cure("what ISOPOD_JAIL leaves out is left out; a control group and an id of its own take root")
}

fn memory() -> Check {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|v| v.split_ascii_whitespace().next()).and_then(|v| v.parse::<u64>().ok());
    let info = sysinfo();
    let total = info.totalram.saturating_mul(info.mem_unit.into());
    let available = kib.map_or(total, |kib| kib * 1024);
    let found = format!("{} MiB available of {}", available / MIB, total / MIB);
    match available {
        0..LOW_MEMORY => {
            check("memory", Verdict::Notice, found).cure("run smaller machines (-m), or free some")
        }
        _ => check("memory", Verdict::Good, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bad_has_a_cure() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "not a kernel").unwrap();
        // Not the jail: its trial executes this program again, which here is all of these tests.
        for found in [guest_kernel(Some(&file)), data_root(&file.join("below"))] {
            assert_eq!(found.verdict, Verdict::Bad, "{found:?}");
            assert!(found.cure.is_some(), "{found:?}");
        }
    }
}
