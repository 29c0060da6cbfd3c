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
    let mut instructions = parse(program)?;
    let len = c_ushort::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = sock_fprog { len, filter: instructions.as_mut_ptr() };
    let mode = c_ulong::from(libc::SECCOMP_SET_MODE_FILTER);
    // As runc: without it the kernel slows the process down where it fears speculation.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the kernel copies `len` instructions, which `instructions` has.
    match unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `AUDIT_ARCH_X86_64`: EM_X86_64, 64 bit, little endian.
const ARCH: u32 = 0xc000_003e;

/// Leaves this thread, and what it will start, no system calls but these; any other one ends the process with SIGSYS. For good.
pub fn allow_only(calls: &[c_long]) -> io::Result<()> {
    set_no_new_privs(true)?;
    // Offsets into `struct seccomp_data`: 0 is the call's number, 4 the architecture.
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), offset);
    let unless = |value| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (0, 1), value);
    let done = |action| instruction(libc::BPF_RET | libc::BPF_K, (0, 0), action);
    let skip_end = instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (1, 0), ARCH);
    let mut program = vec![load(4), skip_end, done(libc::SECCOMP_RET_KILL_PROCESS), load(0)];
    for call in calls {
        let number = u32::try_from(*call).map_err(|_| io::ErrorKind::InvalidInput)?;
        program.extend([unless(number), done(libc::SECCOMP_RET_ALLOW)]);
    }
    program.push(done(libc::SECCOMP_RET_KILL_PROCESS));
    install(&program.concat())
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
    use rustix::io::Errno;
    use rustix::process::{getcwd, getppid};
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

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(install(&[]).is_err());
        assert!(install(&[0; 7]).is_err());
        assert!(install(&vec![0; 8 * (MAX_INSTRUCTIONS + 1)]).is_err());
        assert!(install(&[0xff; 8]).is_err());
    }
}
