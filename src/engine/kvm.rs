// SPDX-License-Identifier: Apache-2.0
//! The host's KVM: opened for each machine, looked into once.

use crate::error::{EngineError, Kind, Result};
use crate::memo::{self, Before};
use isopod_vmm::config::Assist;
use isopod_vmm::host::{self, DEVICE, HostKvm, ProbeError};
use std::fs::File;
use std::io;
use std::path::Path;

#[derive(Debug)]
pub(crate) struct Kvm {
    pub(crate) file: File,
    pub(crate) host: HostKvm,
}

/// Opens KVM; what is behind it is remembered under the run root for as long as the device is the same.
pub(crate) fn open(run_root: &Path) -> Result<Kvm> {
    let file = host::open().map_err(unusable)?;
    let path = run_root.join("kvm.json");
    if let Some(host) = memo::recall(&path, &file) {
        return Ok(Kvm { file, host });
    }
    let before = Before::of(&file);
    let host = host::probe(&file).map_err(unusable)?;
    memo::remember(&path, &before, &host);
    Ok(Kvm { file, host })
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
    EngineError::new(Kind::Unavailable, "cannot use this host's KVM").because(error).hint(cure)
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
    fn no_device_and_no_permission_have_each_their_cure() {
        let hint = |kind: io::ErrorKind| {
            let error = unusable(ProbeError::Open(kind.into()));
            error.advice().unwrap().to_owned()
        };
        assert!(hint(io::ErrorKind::NotFound).contains("modprobe"));
        assert!(hint(io::ErrorKind::PermissionDenied).contains("usermod"));
    }
}
