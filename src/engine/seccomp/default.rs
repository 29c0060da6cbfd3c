// SPDX-License-Identifier: Apache-2.0
//! What a container may call unless told otherwise: Docker's default profile as it applies to x86_64 and Linux 6.12.
//!
//! Whatever is not here is refused with EPERM. One difference in form: address families are listed one by one, since
//! the kernel looks at the lower half of the argument only, and "above 40" would let 40 + 2^32 (AF_VSOCK) through.

use super::profile::{Action, Compare, Condition, Profile, Rule};
use super::table::nr;
use crate::capabilities::{Capabilities, Capability};

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// A table's cells, many to a line.
macro_rules! calls {
    ($($name:ident,)*) => { &[$(nr::$name),*] };
}

/// Allowed to everybody.
const EVERYBODY: &[u16] = calls! {
    read, write, open, close, stat, fstat, lstat, poll, lseek, mmap, mprotect, munmap, brk,
    rt_sigaction, rt_sigprocmask, rt_sigreturn, ioctl, pread64, pwrite64, readv, writev, access,
    pipe, select, sched_yield, mremap, msync, mincore, madvise, shmget, shmat, shmctl, dup, dup2,
    pause, nanosleep, getitimer, alarm, setitimer, getpid, sendfile, connect, accept, sendto,
    recvfrom, sendmsg, recvmsg, shutdown, bind, listen, getsockname, getpeername, socketpair,
    setsockopt, getsockopt, fork, vfork, execve, exit, wait4, kill, uname, semget, semop, semctl,
    shmdt, msgget, msgsnd, msgrcv, msgctl, fcntl, flock, fsync, fdatasync, truncate, ftruncate,
    getdents, getcwd, chdir, fchdir, rename, mkdir, rmdir, creat, link, unlink, symlink, readlink,
    chmod, fchmod, chown, fchown, lchown, umask, gettimeofday, getrlimit, getrusage, sysinfo, times,
    ptrace, getuid, getgid, setuid, setgid, geteuid, getegid, setpgid, getppid, getpgrp, setsid,
    setreuid, setregid, getgroups, setgroups, setresuid, getresuid, setresgid, getresgid, getpgid,
    setfsuid, setfsgid, getsid, capget, capset, rt_sigpending, rt_sigtimedwait, rt_sigqueueinfo,
    rt_sigsuspend, sigaltstack, utime, mknod, statfs, fstatfs, getpriority, setpriority,
    sched_setparam, sched_getparam, sched_setscheduler, sched_getscheduler, sched_get_priority_max,
    sched_get_priority_min, sched_rr_get_interval, mlock, munlock, mlockall, munlockall, modify_ldt,
    prctl, arch_prctl, adjtimex, setrlimit, sync, gettid, readahead, setxattr, lsetxattr, fsetxattr,
    getxattr, lgetxattr, fgetxattr, listxattr, llistxattr, flistxattr, removexattr, lremovexattr,
    fremovexattr, tkill, time, futex, sched_setaffinity, sched_getaffinity, set_thread_area,
    io_setup, io_destroy, io_getevents, io_submit, io_cancel, get_thread_area, epoll_create,
    epoll_ctl_old, epoll_wait_old, remap_file_pages, getdents64, set_tid_address, restart_syscall,
    semtimedop, fadvise64, timer_create, timer_settime, timer_gettime, timer_getoverrun,
    timer_delete, clock_gettime, clock_getres, clock_nanosleep, exit_group, epoll_wait, epoll_ctl,
    tgkill, utimes, mq_open, mq_unlink, mq_timedsend, mq_timedreceive, mq_notify, mq_getsetattr,
    waitid, ioprio_set, ioprio_get, inotify_init, inotify_add_watch, inotify_rm_watch, openat,
    mkdirat, mknodat, fchownat, futimesat, newfstatat, unlinkat, renameat, linkat, symlinkat,
    readlinkat, fchmodat, faccessat, pselect6, ppoll, set_robust_list, get_robust_list, splice, tee,
    sync_file_range, vmsplice, utimensat, epoll_pwait, signalfd, timerfd_create, eventfd, fallocate,
    timerfd_settime, timerfd_gettime, accept4, signalfd4, eventfd2, epoll_create1, dup3, pipe2,
    inotify_init1, preadv, pwritev, rt_tgsigqueueinfo, recvmmsg, fanotify_mark, prlimit64,
    name_to_handle_at, clock_adjtime, syncfs, sendmmsg, getcpu, process_vm_readv, process_vm_writev,
    sched_setattr, sched_getattr, renameat2, seccomp, getrandom, memfd_create, execveat, membarrier,
    mlock2, copy_file_range, preadv2, pwritev2, pkey_mprotect, pkey_alloc, pkey_free, statx,
    io_pgetevents, rseq, uretprobe, pidfd_send_signal, pidfd_open, close_range, openat2, faccessat2,
    epoll_pwait2, landlock_create_ruleset, landlock_add_rule, landlock_restrict_self, memfd_secret,
    process_mrelease, futex_waitv, cachestat, fchmodat2, map_shadow_stack, futex_wake, futex_wait,
    futex_requeue, statmount, listmount, mseal, setxattrat, getxattrat, listxattrat, removexattrat,
};

/// Allowed to who has the capability.
const WITH: &[(Capability, &[u16])] = &[
    (
        Capability::SYS_ADMIN,
        calls! {
            clone, syslog, mount, umount2, sethostname, setdomainname, quotactl, lookup_dcookie, unshare,
            perf_event_open, fanotify_init, setns, bpf, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick,
            clone3, mount_setattr, quotactl_fd, lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules,
        },
    ),
    (Capability::DAC_READ_SEARCH, calls! { open_by_handle_at, }),
    (Capability::SYS_BOOT, calls! { reboot, }),
    (Capability::SYS_CHROOT, calls! { chroot, }),
    (Capability::SYS_MODULE, calls! { init_module, delete_module, finit_module, }),
    (Capability::SYS_PACCT, calls! { acct, }),
    (Capability::SYS_PTRACE, calls! { kcmp, pidfd_getfd, process_madvise, }),
    (Capability::SYS_RAWIO, calls! { iopl, ioperm, }),
    (Capability::SYS_TIME, calls! { settimeofday, clock_settime, }),
    (Capability::SYS_TTY_CONFIG, calls! { vhangup, }),
    (Capability::SYS_NICE, calls! { mbind, set_mempolicy, get_mempolicy, set_mempolicy_home_node, }),
    (Capability::SYSLOG, calls! { syslog, }),
    (Capability::BPF, calls! { bpf, }),
    (Capability::PERFMON, calls! { perf_event_open, }),
];

/// The flags of clone(2) that make a namespace.
const CLONE_NEW: u64 = 0x7e02_0000;
/// PER_LINUX and PER_LINUX32, with and without UNAME26; and the question what it is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Address families: all that are still there, but not AF_ALG (38) and AF_VSOCK (40).
const FAMILIES: [(u64, u64); 8] =
    [(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// The default profile for a process with these capabilities.
pub fn default_profile(capabilities: Capabilities) -> Profile {
    let mut rules: Vec<Rule> = EVERYBODY.iter().map(|nr| Rule::allow(*nr)).collect();
    for (capability, calls) in WITH {
        if capabilities.has(*capability) {
            rules.extend(calls.iter().map(|nr| Rule::allow(*nr)));
        }
    }
    if !capabilities.has(Capability::SYS_ADMIN) {
        rules
            .push(Rule::allow_if(nr::clone, Condition::on(0, Compare::Masked { mask: CLONE_NEW, value: 0 })));
        // So that a C library falls back to clone, whose flags can be looked at.
        rules.push(Rule { syscall: nr::clone3, when: Vec::new(), action: Action::Errno(ENOSYS) });
    }
    for value in PERSONALITIES {
        rules.push(Rule::allow_if(nr::personality, Condition::on(0, Compare::Eq(value))));
    }
    for family in FAMILIES.iter().flat_map(|(first, last)| *first..=*last) {
        rules.push(Rule::allow_if(nr::socket, Condition::on(0, Compare::Eq(family))));
    }
    Profile::new(Action::Errno(EPERM), rules)
}
