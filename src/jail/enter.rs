// SPDX-License-Identifier: Apache-2.0
//! The jailed process's side: closes the layers behind itself, in their order, for good.

use super::ids;
use super::landlock;
use super::layers::{Layer, Layers};
use super::limits::Limits;
use super::root;
use isopod_sys::fdpass;
use isopod_sys::process::Namespaces;
use rustix::io::{Errno, write};
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use thiserror::Error;

/// What the process is told first; the files of its control group, to be written to, come along.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) layers: Layers,
    /// Whether an id is taken here; else it was made root of a user namespace when it was started.
    pub(crate) take_id: bool,
    pub(crate) limits: Limits,
}

/// Most bytes of an order.
pub(crate) const ORDER_MAX: usize = 512;

/// A layer that could not be had.
#[derive(Debug, Error)]
#[error("the jail's layer `{layer}` cannot be had ({})", .layer.what())]
pub struct JailError {
    pub layer: Layer,
    #[source]
    pub source: io::Error,
}

impl Layers {
    /// Closes a layer, if it is one of these.
    pub(crate) fn close(self, layer: Layer, how: impl FnOnce() -> io::Result<()>) -> Result<(), JailError> {
        if !self.has(layer) {
            return Ok(());
        }
        how().map_err(|source| JailError { layer, source })
    }
}

/// What has closed, and what is still to be closed: the last layer is the work's own.
#[derive(Debug, Clone, Copy)]
pub struct Entered {
    layers: Layers,
}

impl Entered {
    /// Whether each thread is to close a filter behind itself.
    pub fn filters(self) -> bool {
        self.layers.has(Layer::Seccomp)
    }
}

/// Takes the order from the socket and follows it. `None` if who started this process is gone. The process must have
/// one thread.
pub fn enter(socket: BorrowedFd<'_>) -> Result<Option<Entered>, JailError> {
    let mut bytes = [0; ORDER_MAX];
    let Ok((n @ 1.., group)) = fdpass::receive(socket, &mut bytes) else { return Ok(None) };
    let Ok(order) = serde_json::from_slice::<Order>(&bytes[..n]) else { return Ok(None) };
    let Order { layers, take_id, limits } = order;
    let close = |layer, how: &dyn Fn() -> io::Result<()>| layers.close(layer, how);
    close(Layer::ControlGroup, &|| join(&group))?;
    drop(group);
    close(Layer::User, &|| if take_id { ids::take() } else { Ok(()) })?;
    for (layer, namespace) in NAMESPACES {
        close(layer, &|| namespace.unshare())?;
    }
    close(Layer::Mount, &root::empty)?;
    // Only now: a change of ids takes it back.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    close(Layer::Limits, &|| limits.set())?;
    close(Layer::Capabilities, &drop_capabilities)?;
    close(Layer::Untraceable, &|| Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?))?;
    close(Layer::NoNewPrivileges, &|| Ok(set_no_new_privs(true)?))?;
    close(Layer::Landlock, &landlock::restrict)?;
    Ok(Some(Entered { layers }))
}

/// Each by itself, so that the one that is missing can be named.
const NAMESPACES: [(Layer, Namespaces); 5] = [
    (Layer::Mount, Namespaces::MOUNT),
    (Layer::Network, Namespaces::NETWORK),
    (Layer::Ipc, Namespaces::IPC),
    (Layer::Uts, Namespaces::UTS),
    (Layer::ControlGroupView, Namespaces::CGROUP),
];

/// Writes itself into each file. Whoever moves the one thread that it is needs no lock of the whole system's, for which the
/// kernel may wait tens of milliseconds.
fn join(group: &[OwnedFd]) -> io::Result<()> {
    group.iter().try_for_each(|file| write(file, b"0").map(drop))?;
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    clear_ambient_capability_set()?;
    drop_from_bounding_set(CapabilitySet::all())?;
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

/// Takes CAP_SETPCAP: whoever is neither root nor born into a user namespace cannot.
pub(crate) fn drop_from_bounding_set(capabilities: CapabilitySet) -> io::Result<()> {
    for capability in capabilities.iter() {
        match remove_capability_from_bounding_set(capability) {
            // One that this kernel does not know is in no set of its.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::capabilities;
    use std::thread;

    #[test]
    fn a_bounding_set_that_cannot_be_emptied_is_an_error() {
        let without_the_right = || {
            let mut sets = capabilities(None)?;
            sets.effective.remove(CapabilitySet::SETPCAP);
            set_capabilities(None, sets)?;
            drop_capabilities()
        };
        let error = thread::spawn(without_the_right).join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
