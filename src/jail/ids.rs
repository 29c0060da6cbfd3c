// SPDX-License-Identifier: Apache-2.0
//! An id that no other process of this PID namespace has, and a user namespace in which it is the only one.
//!
//! Its number comes from the process's own, of which there is one in its PID namespace: nothing has to be allotted, and
//! nothing is left over. On most hosts that namespace is the host's, and the id the only one there. Two isopods in PID
//! namespaces of their own, both as the host's root (two privileged containers), may give one id to two machines: these are
//! then kept apart by the layers that keep those of a user without root apart, who all have that user's.

use isopod_sys::process::Namespaces;
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits, Gid, Uid, set_capabilities_secure_bits, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use std::fs;
use std::io;
use std::sync::OnceLock;

/// The first id. From here to 2³¹ nobody gives any out: the ranges of users, services and containers end below (systemd's
/// "Users, Groups, UIDs and GIDs"), and a process's number is below 2²².
pub(crate) const FIRST: u32 = 0x7000_0000;
pub(crate) const COUNT: u32 = 1 << 22;

/// Whether this process may take any id: it is root, and not just a user namespace's.
pub(crate) fn may_be_taken() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        let maps = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        geteuid().is_root() && maps.split_ascii_whitespace().eq(["0", "0", "4294967295"])
    })
}

/// Becomes somebody without a name, who is root in a user namespace and nobody outside.
pub(crate) fn take() -> io::Result<()> {
    let number = fs::read_link("/proc/self")?;
    let number = number.to_str().and_then(|number| number.parse::<u32>().ok()).filter(|n| *n < COUNT);
    let id = FIRST + number.ok_or_else(|| io::Error::other("/proc/self has no number"))?;
    // Capabilities that survive the change of id are what some hosts want to see of who makes a user namespace.
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    set_thread_groups(&[])?;
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // Otherwise the files that are written next are root's.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Namespaces::USER.unshare()?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {id} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {id} 1"))
}
