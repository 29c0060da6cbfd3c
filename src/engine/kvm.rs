// SPDX-License-Identifier: Apache-2.0
//! The host's KVM: opened for each machine, looked into once a boot.

use crate::error::{EngineError, Kind, Result};
use isopod_vmm::config::Assist;
use isopod_vmm::host::{self, DEVICE, HostKvm, ProbeError};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Debug)]
pub(crate) struct Kvm {
    pub(crate) file: File,
    pub(crate) host: HostKvm,
}

/// What was found, and in which boot.
#[derive(Serialize, Deserialize)]
struct Found {
    boot: String,
    host: HostKvm,
}

/// Opens KVM; what is behind it is remembered under the run root, for as long as this boot lasts.
pub(crate) fn open(run_root: &Path) -> Result<Kvm> {
    let file = host::open().map_err(unusable)?;
    let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
    let path = run_root.join("kvm.json");
    if let Some(host) = remembered(&path, &boot) {
        return Ok(Kvm { file, host });
    }
    let host = host::probe(&file).map_err(unusable)?;
    // To forget costs the next run a millisecond, nothing else.
    let _ = remember(
        run_root,
        &path,
        &Found {
            boot,
            host: host.clone(),
        },
    );
    Ok(Kvm { file, host })
}

fn remembered(path: &Path, boot: &str) -> Option<HostKvm> {
    let found: Found = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (!boot.is_empty() && found.boot == boot).then_some(found.host)
}

fn remember(run_root: &Path, path: &Path, found: &Found) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(run_root)?;
    let fresh = run_root.join(format!("kvm.json.{}", process::id()));
    fs::write(&fresh, serde_json::to_vec(found)?)?;
    fs::rename(&fresh, path)
}

pub(crate) fn unusable(error: ProbeError) -> EngineError {
    let cure = match &error {
        ProbeError::Open(e) => match e.kind() {
            io::ErrorKind::NotFound => format!(
                "there is no {DEVICE}: load the module (`modprobe kvm_intel` or `kvm_amd`), switch virtualisation on \
                 in the firmware, or, in a virtual machine, have its host allow nesting"
            ),
            io::ErrorKind::PermissionDenied => {
                format!("you may not open {DEVICE}: `sudo usermod -aG kvm $USER`, then log in again")
            }
            _ => format!("look at {DEVICE} and at what `dmesg` says of kvm"),
        },
        _ => "this KVM lacks what isopod needs: a newer kernel on the host may have it".to_owned(),
    };
    EngineError::new(Kind::Unavailable, "cannot use this host's KVM")
        .because(error)
        .hint(cure)
}

/// In words.
pub(crate) fn kind_of(host: &HostKvm) -> &'static str {
    match host.assist {
        Assist::None => "hardware",
        Assist::Emulated => "emulating guest-kernel code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_in_another_boot_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvm.json");
        let host = HostKvm {
            api_version: 12,
            max_vcpus: 4,
            assist: Assist::None,
        };
        remember(
            folder.path(),
            &path,
            &Found {
                boot: "a".into(),
                host: host.clone(),
            },
        )
        .unwrap();
        assert_eq!(remembered(&path, "a"), Some(host));
        assert_eq!(remembered(&path, "b"), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(remembered(&path, "a"), None);
    }

    #[test]
    fn no_device_and_no_permission_have_each_their_cure() {
        let hint = |kind: io::ErrorKind| {
            let error = unusable(ProbeError::Open(kind.into()));
            error.advice().unwrap().to_owned()
        };
        assert!(hint(io::ErrorKind::NotFound).contains("modprobe"));
        assert!(hint(io::ErrorKind::PermissionDenied).contains("usermod"));
    }
}
