// SPDX-License-Identifier: Apache-2.0
//! The host's KVM: opened for each machine, looked into once.

use crate::error::{EngineError, Kind, Result};
use isopod_vmm::config::Assist;
use isopod_vmm::host::{self, DEVICE, HostKvm, ProbeError};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::process;

/// More than what is remembered takes.
const REMEMBERED: usize = 1024;

#[derive(Debug)]
pub(crate) struct Kvm {
    pub(crate) file: File,
    pub(crate) host: HostKvm,
}

/// What was found, and behind which device node.
#[derive(Serialize, Deserialize)]
struct Found {
    node: Node,
    host: HostKvm,
}

/// A device node: another boot or another module makes another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    inode: u64,
    changed: (i64, i64),
}

/// Opens KVM; what is behind it is remembered under the run root for as long as the device is the same.
pub(crate) fn open(run_root: &Path) -> Result<Kvm> {
    let file = host::open().map_err(unusable)?;
    let at = file.metadata().map_err(|e| unusable(ProbeError::Open(e)))?;
    let node = Node { inode: at.ino(), changed: (at.ctime(), at.ctime_nsec()) };
    let path = run_root.join("kvm.json");
    if let Some(host) = remembered(&path, &node) {
        return Ok(Kvm { file, host });
    }
    let host = host::probe(&file).map_err(unusable)?;
    // To forget costs the next run a millisecond, nothing else.
    let _ = remember(run_root, &path, &Found { node, host: host.clone() });
    Ok(Kvm { file, host })
}

fn remembered(path: &Path, node: &Node) -> Option<HostKvm> {
    let mut buf = [0; REMEMBERED];
    let n = File::open(path).ok()?.read(&mut buf).ok()?;
    let found: Found = serde_json::from_slice(&buf[..n]).ok()?;
    (found.node == *node).then_some(found.host)
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
    fn what_was_found_behind_another_node_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvm.json");
        let host = HostKvm { api_version: 12, max_vcpus: 4, assist: Assist::None };
        let node = |inode| Node { inode, changed: (1, 2) };
        remember(folder.path(), &path, &Found { node: node(7), host: host.clone() }).unwrap();
        assert_eq!(remembered(&path, &node(7)), Some(host));
        assert_eq!(remembered(&path, &node(8)), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(remembered(&path, &node(7)), None);
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
