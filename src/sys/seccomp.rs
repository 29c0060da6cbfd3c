// SPDX-License-Identifier: Apache-2.0
//! System call filters, as programs that were compiled elsewhere.

use libc::{c_long, c_ulong, c_ushort, sock_filter, sock_fprog};
use rustix::thread::set_no_new_privs;
use std::io;
use std::mem::size_of;

/// Most instructions the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Puts this thread, and what it will start and execute, under a classic BPF program: a `struct sock_filter` array in
/// native byte order. The kernel checks the program; it wants `no_new_privs` or CAP_SYS_ADMIN.
pub fn install(program: &[u8]) -> io::Result<()> {
    // As runc: without it the kernel slows the process down where it fears speculation.
    install_with(program, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW)
}

fn install_with(program: &[u8], flags: c_ulong) -> io::Result<()> {
    let mut instructions = parse(program)?;
    let len = c_ushort::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = sock_fprog { len, filter: instructions.as_mut_ptr() };
    let mode = c_ulong::from(libc::SECCOMP_SET_MODE_FILTER);
    // SAFETY: the kernel copies `len` instructions, which `instructions` has.
    match unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `AUDIT_ARCH_X86_64`: EM_X86_64, 64 bit, little endian.
const ARCH: u32 = 0xc000_003e;
/// `__X32_SYSCALL_BIT`.
const X32: u32 = 0x4000_0000;

/// A system call that is allowed, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub call: c_long,
    /// Both hold.
    pub when: [When; 2],
    pub why: &'static str,
}

/// For which arguments, of whose lower halves alone the kernel makes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    /// The argument of this number is this.
    Is(u8, u32),
    /// The argument of this number has none of these bits.
    Lacks(u8, u32),
}

/// Of mmap's fourth argument: memory that a process's limit of data does not count, since others may have it, too, since it
/// may be a stack, or since it is of another store.
pub const UNCOUNTED: u32 = (libc::MAP_SHARED | libc::MAP_GROWSDOWN | libc::MAP_HUGETLB).cast_unsigned();

/// A rule for all of a call's arguments.
#[must_use]
pub const fn allow(call: c_long, why: &'static str) -> Rule {
    allow_when(call, When::Always, why)
}

/// A rule for one request of a device's.
#[must_use]
pub const fn ioctl(request: u32, why: &'static str) -> Rule {
    allow_when(libc::SYS_ioctl, When::Is(1, request), why)
}

/// A rule for some of a call's arguments.
#[must_use]
pub const fn allow_when(call: c_long, when: When, why: &'static str) -> Rule {
    allow_when_both(call, [when, When::Always], why)
}

/// A rule for what two of a call's arguments are.
#[must_use]
pub const fn allow_when_both(call: c_long, when: [When; 2], why: &'static str) -> Rule {
    Rule { call, when, why }
}

/// Leaves this thread, and what it will start, no system calls but these; any other one ends the process with SIGSYS. For
/// good. A thread that has a filter already has what both allow.
pub fn allow_only(rules: &[Rule]) -> io::Result<()> {
    set_no_new_privs(true)?;
    let skip_end = instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (1, 0), ARCH);
    let mut program = vec![load(4), skip_end, done(libc::SECCOMP_RET_KILL_PROCESS), load(0)];
    for rule in rules {
        program.extend(allowing(rule)?);
    }
    program.push(done(libc::SECCOMP_RET_KILL_PROCESS));
    install_with(&program.concat(), 0)
}

/// A rule's part of a filter, which begins and ends with the call's number at hand: another rule may be for the same call.
fn allowing(rule: &Rule) -> io::Result<Vec<[u8; 8]>> {
    let jump = |how, jumps, value| instruction(libc::BPF_JMP | how | libc::BPF_K, jumps, value);
    let number = u32::try_from(rule.call).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut part = vec![done(libc::SECCOMP_RET_ALLOW)];
    if rule.when != [When::Always; 2] {
        part.push(load(0));
    }
    // From its end. What does not fit passes over the rest of the rule, up to where the number is loaded again.
    for (when, over) in rule.when.iter().filter(|when| **when != When::Always).zip([1, 3]) {
        let (argument, test) = match *when {
            When::Always => continue,
            When::Is(argument, value) => (argument, jump(libc::BPF_JEQ, (0, over), value)),
            When::Lacks(argument, bits) => (argument, jump(libc::BPF_JSET, (over, 0), bits)),
        };
        part.splice(0..0, [load(16 + 8 * u32::from(argument)), test]);
    }
    let len = u8::try_from(part.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    part.insert(0, jump(libc::BPF_JEQ, (0, len), number));
    Ok(part)
}

/// Has this thread, and what it will start, told EPERM when it makes one of these calls, whatever their arguments. For good.
/// With each goes why.
pub fn deny(calls: &[(c_long, &str)]) -> io::Result<()> {
    set_no_new_privs(true)?;
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let mut program = vec![
        load(4),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (1, 0), ARCH),
        done(refused),
        load(0),
        // The calls of a third architecture, which are the same by other numbers.
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, (0, 1), X32),
        done(refused),
    ];
    for (call, _) in calls {
        let number = u32::try_from(*call).map_err(|_| io::ErrorKind::InvalidInput)?;
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (0, 1), number));
        program.push(done(refused));
    }
    program.push(done(libc::SECCOMP_RET_ALLOW));
    install_with(&program.concat(), 0)
}

/// Takes a word of `struct seccomp_data`: at 0 is the call's number, at 4 the architecture, from 16 on the arguments.
fn load(offset: u32) -> [u8; 8] {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), offset)
}

fn done(action: u32) -> [u8; 8] {
    instruction(libc::BPF_RET | libc::BPF_K, (0, 0), action)
}

/// `jumps`: how many instructions are passed over if a comparison holds, and if not.
fn instruction(code: u32, jumps: (u8, u8), k: u32) -> [u8; 8] {
    let [c0, c1, ..] = code.to_ne_bytes();
    let [k0, k1, k2, k3] = k.to_ne_bytes();
    [c0, c1, jumps.0, jumps.1, k0, k1, k2, k3]
}

fn parse(program: &[u8]) -> io::Result<Vec<sock_filter>> {
    let (instructions, rest) = program.as_chunks::<{ size_of::<sock_filter>() }>();
    if !rest.is_empty() || instructions.is_empty() || instructions.len() > MAX_INSTRUCTIONS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a filter of a length no filter has"));
    }
    let one = |&[c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; 8]| sock_filter {
        code: u16::from_ne_bytes([c0, c1]),
        jt,
        jf,
        k: u32::from_ne_bytes([k0, k1, k2, k3]),
    };
    Ok(instructions.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Advice, SeekFrom, fadvise, seek};
    use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
    use rustix::process::{getcwd, getppid};
    use rustix::stdio::stdin;
    use rustix::thread::gettid;
    use std::env;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::thread;

    #[test]
    fn a_filter_holds_for_its_thread_alone() {
        let number = u32::try_from(libc::SYS_getcwd).unwrap();
        let program = [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), 0),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (0, 1), number),
            instruction(libc::BPF_RET, (0, 0), libc::SECCOMP_RET_ERRNO | 38),
            instruction(libc::BPF_RET, (0, 0), libc::SECCOMP_RET_ALLOW),
        ]
        .concat();
        let filtered = thread::spawn(move || {
            set_no_new_privs(true).unwrap();
            install(&program).unwrap();
            (getppid().is_some(), getcwd(vec![]))
        });
        assert_eq!(filtered.join().unwrap(), (true, Err(Errno::NOSYS)));
        assert!(getcwd(vec![]).is_ok());
    }

    const DEED: &str = "ISOPOD_TEST_DEED";
    const EXIT: Rule = allow(libc::SYS_exit_group, "its end");
    const RULES: &[Rule] = &[
        EXIT,
        allow(libc::SYS_getppid, "a test"),
        allow_when(libc::SYS_fcntl, When::Is(1, libc::F_GETFD.cast_unsigned()), "a test"),
        allow_when(libc::SYS_fcntl, When::Is(1, libc::F_GETFL.cast_unsigned()), "a test"),
        allow_when(libc::SYS_lseek, When::Lacks(2, 2), "a test"),
        allow_when_both(libc::SYS_fadvise64, [When::Is(1, 4), When::Lacks(3, 1)], "a test"),
        allow_when_both(libc::SYS_fadvise64, [When::Lacks(1, 8), When::Is(3, 3)], "a test"),
        allow(libc::SYS_gettid, "a test"),
    ];
    /// What is done, and whether it may be.
    const DEEDS: [(fn(), bool); 13] = [
        (|| (), true),
        (|| _ = getppid(), true),
        (|| _ = getcwd(vec![]), false),
        (|| _ = fcntl_getfd(stdin()), true),
        (|| _ = fcntl_setfd(stdin(), FdFlags::empty()), false),
        (|| _ = seek(stdin(), SeekFrom::Current(0)), true),
        (|| _ = seek(stdin(), SeekFrom::End(0)), false),
        (|| _ = fadvise(stdin(), 4, None, Advice::Normal), true),
        (|| _ = fadvise(stdin(), 4, None, Advice::Random), false),
        (|| _ = fadvise(stdin(), 5, None, Advice::WillNeed), true),
        (|| _ = fadvise(stdin(), 12, None, Advice::WillNeed), false),
        (|| _ = fadvise(stdin(), 5, None, Advice::Normal), false),
        // A rule behind those that did not fit.
        (|| _ = gettid(), true),
    ];

    /// Each deed is another process's, which is this test again.
    #[test]
    fn what_no_rule_allows_ends_the_process() {
        if let Some(deed) = env::var(DEED).ok().and_then(|deed| deed.parse::<usize>().ok()) {
            allow_only(RULES).unwrap();
            DEEDS[deed].0();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(0) };
        }
        for (n, (_, allowed)) in DEEDS.iter().enumerate() {
            let mut again = Command::new(env::current_exe().unwrap());
            again.args(["--exact", "seccomp::tests::what_no_rule_allows_ends_the_process"]);
            let status = again.env(DEED, n.to_string()).output().unwrap().status;
            assert_eq!(status.signal(), (!allowed).then_some(libc::SIGSYS), "deed {n}");
        }
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(install(&[]).is_err());
        assert!(install(&[0; 7]).is_err());
        assert!(install(&vec![0; 8 * (MAX_INSTRUCTIONS + 1)]).is_err());
        assert!(install(&[0xff; 8]).is_err());
    }
}
