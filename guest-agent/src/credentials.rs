// SPDX-License-Identifier: Apache-2.0
//! What a process may: limits, capabilities, ids, filter. In the order of runc, with what exec does anyway left out.
//!
//! The permitted and effective sets are not set before an exec: of a root user exec makes them what the bounding set is,
//! of anybody else it leaves nothing. The inheritable and ambient sets stay empty, as in Docker (CVE-2022-24769).

use crate::failure::{Doing, Failure};
use crate::users::Identity;
use isopod_protocol::message::Container;
use isopod_sys::process::set_limit;
use isopod_sys::seccomp;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use rustix::thread::{
    capabilities, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// Limits, filter, bounding set, ids. After this the process has no more rights than the container is given.
pub(crate) fn confine(container: &Container, identity: &Identity) -> Result<(), Failure> {
    if !container.no_new_privileges {
        narrow(container)?;
    } else {
        bound(container.capabilities).doing("drop", "capabilities")?;
    }
    become_user(container, identity)
}

/// What there is to be confined by that has nothing to do with who it is: the filter, which without no_new_privs takes
/// CAP_SYS_ADMIN, and the bounding set, which takes effect with the program.
pub(crate) fn narrow(container: &Container) -> Result<(), Failure> {
    filter(container)?;
    bound(container.capabilities).doing("drop", "capabilities")
}

/// Limits and ids.
pub(crate) fn become_user(container: &Container, identity: &Identity) -> Result<(), Failure> {
    for limit in &container.rlimits {
        set_limit(limit.resource, limit.soft, limit.hard)
            .doing("limit resource", limit.resource.to_string())?;
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    set_thread_groups(&groups).doing("set", "groups")?;
    if identity.gid != 0 {
        let gid = Gid::from_raw(identity.gid);
        set_thread_res_gid(gid, gid, gid).doing("set", "the group")?;
    }
    if identity.uid != 0 {
        let uid = Uid::from_raw(identity.uid);
        set_thread_res_uid(uid, uid, uid).doing("set", "the user")?;
    }
    Ok(())
}

/// What confines even `execve`, last.
pub(crate) fn seal(container: &Container) -> Result<(), Failure> {
    if container.no_new_privileges {
        forgo_privileges()?;
        filter(container)?;
    }
    Ok(())
}

pub(crate) fn forgo_privileges() -> Result<(), Failure> {
    set_no_new_privs(true).doing("set", "no_new_privs")
}

/// For a process that goes on without an exec: takes away now what exec would.
pub(crate) fn shed(container: &Container, identity: &Identity) -> Result<(), Failure> {
    let kept = if identity.uid == 0 {
        CapabilitySet::from_bits_retain(container.capabilities)
    } else {
        CapabilitySet::empty()
    };
    // Nobody can give himself what he lacks, which is nothing in a machine.
    let kept = kept & capabilities(None).doing("ask for", "capabilities")?.permitted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).doing("drop", "capabilities")
}

fn filter(container: &Container) -> Result<(), Failure> {
    if container.seccomp.is_empty() {
        return Ok(());
    }
    seccomp::install(&container.seccomp).doing("install", "the system call filter")
}

/// Drops from the bounding set what is not in `kept`: one system call for each, there is no other way.
fn bound(kept: u64) -> Result<(), Errno> {
    for bit in (0..u64::BITS).filter(|bit| kept & (1 << bit) == 0) {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
