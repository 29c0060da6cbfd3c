// SPDX-License-Identifier: Apache-2.0
//! What is given up by a process that talks to a jailed one, once it has started it: it reads files, writes where its work is,
//! passes bytes on, and ends the other. It starts nothing any more, and reaches nobody else.

use super::enter::{JailError, drop_from_bounding_set};
use super::landlock;
use super::layers::{Layer, Layers};
use isopod_sys::seccomp::deny;
use libc::c_long;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs,
};
use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// What it takes to end a process of another id, and to write in folders of any owner's.
const KEPT: CapabilitySet = CapabilitySet::KILL.union(CapabilitySet::DAC_OVERRIDE);

/// Of Linux 6.15.
const OPEN_TREE_ATTR: c_long = 467;

/// How long the end of a thread may take, and how often it is looked for.
const MOMENT: Duration = Duration::from_millis(10);
const MOMENTS: u32 = 50;

/// Calls that are answered with EPERM, and why nobody misses them.
const DENIED: &[(c_long, &str)] = &[
    (libc::SYS_execve, "starts nothing"),
    (libc::SYS_execveat, "starts nothing"),
    (libc::SYS_fork, "starts nothing"),
    (libc::SYS_vfork, "starts nothing"),
    (libc::SYS_clone, "starts nothing, and has all its threads"),
    (libc::SYS_clone3, "starts nothing, and has all its threads"),
    (libc::SYS_socket, "has its sockets"),
    (libc::SYS_socketpair, "has its sockets"),
    (libc::SYS_connect, "has its sockets"),
    (libc::SYS_ptrace, "nobody's memory is its business"),
    (libc::SYS_process_vm_readv, "nobody's memory is its business"),
    (libc::SYS_process_vm_writev, "nobody's memory is its business"),
    (libc::SYS_pidfd_getfd, "nobody's descriptors are its business"),
    (libc::SYS_mount, "mounts nothing"),
    (libc::SYS_umount2, "mounts nothing"),
    (libc::SYS_open_tree, "mounts nothing"),
    (libc::SYS_move_mount, "mounts nothing"),
    (libc::SYS_fsopen, "mounts nothing"),
    (libc::SYS_fsmount, "mounts nothing"),
    (libc::SYS_fsconfig, "mounts nothing"),
    (libc::SYS_fspick, "mounts nothing"),
    (OPEN_TREE_ATTR, "mounts nothing"),
    (libc::SYS_mount_setattr, "mounts nothing"),
    (libc::SYS_pivot_root, "mounts nothing"),
    (libc::SYS_chroot, "mounts nothing"),
    (libc::SYS_unshare, "makes no namespace"),
    (libc::SYS_setns, "enters no namespace"),
    (libc::SYS_bpf, "extends no kernel"),
    (libc::SYS_init_module, "extends no kernel"),
    (libc::SYS_finit_module, "extends no kernel"),
    (libc::SYS_delete_module, "extends no kernel"),
    (libc::SYS_kexec_load, "starts no kernel"),
    (libc::SYS_kexec_file_load, "starts no kernel"),
    (libc::SYS_reboot, "stops no kernel"),
    (libc::SYS_perf_event_open, "a large part of the kernel that is not needed"),
    (libc::SYS_io_uring_setup, "a large part of the kernel that is not needed"),
    (libc::SYS_userfaultfd, "a large part of the kernel that is not needed"),
    (libc::SYS_add_key, "a large part of the kernel that is not needed"),
    (libc::SYS_request_key, "a large part of the kernel that is not needed"),
    (libc::SYS_keyctl, "a large part of the kernel that is not needed"),
    (libc::SYS_setuid, "stays who it is"),
    (libc::SYS_setgid, "stays who it is"),
    (libc::SYS_setreuid, "stays who it is"),
    (libc::SYS_setregid, "stays who it is"),
    (libc::SYS_setfsuid, "stays who it is"),
    (libc::SYS_setfsgid, "stays who it is"),
    (libc::SYS_setresuid, "stays who it is"),
    (libc::SYS_setresgid, "stays who it is"),
    (libc::SYS_setgroups, "stays who it is"),
    (libc::SYS_iopl, "no port is its business"),
    (libc::SYS_ioperm, "no port is its business"),
];

/// Gives up what supervision does not take, for good. Below `folders` it goes on writing, everywhere it goes on reading. The
/// process must have one thread, for what is given up is given up by a thread. `layers` are those of the jail: what was left
/// out there is left out here.
pub fn supervise(layers: Layers, folders: &[&Path]) -> Result<(), JailError> {
    let threads = threads();
    let close = |layer, how: &dyn Fn() -> io::Result<()>| match threads {
        1 => layers.close(layer, how),
        n => layers.close(layer, || Err(io::Error::other(format!("this process has {n} threads, not one")))),
    };
    close(Layer::Capabilities, &keep_few)?;
    close(Layer::NoNewPrivileges, &|| Ok(set_no_new_privs(true)?))?;
    close(Layer::Landlock, &|| landlock::restrict_writing(folders))?;
    close(Layer::Seccomp, &|| deny(DENIED))
}

/// How many this process has. One that was waited for may be listed a moment longer.
fn threads() -> usize {
    let count = || fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(0);
    for _ in 0..MOMENTS {
        if count() == 1 {
            return 1;
        }
        sleep(MOMENT);
    }
    count()
}

fn keep_few() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let has = capabilities(None)?.permitted;
    // Whoever is not root may not, and has none to lose.
    if has.contains(CapabilitySet::SETPCAP) {
        drop_from_bounding_set(CapabilitySet::all().difference(KEPT))?;
    }
    let kept = has & KEPT;
    Ok(set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_several_threads_gives_nothing_up() {
        // One is the test's, one waits for it.
        let error = supervise(Layers::NONE | Layer::NoNewPrivileges, &[]).unwrap_err();
        assert_eq!(error.layer, Layer::NoNewPrivileges);
        assert!(error.source.to_string().contains("threads"), "{}", error.source);
        assert!(supervise(Layers::NONE, &[]).is_ok());
    }
}
