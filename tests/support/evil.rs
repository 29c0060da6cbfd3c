// SPDX-License-Identifier: Apache-2.0
//! Guests that mean no good: kernels of a few instructions, written byte by byte. They start in milliseconds.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the code goes in the guest, and where in the file.
const CODE_AT: u64 = 0x100_0000;
const CODE_OFFSET: u64 = 0x1000;

/// What a kernel does as soon as it runs: in 64-bit mode, interrupts off, the first GiB mapped to itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    TripleFault,
    /// For ever, interrupts off.
    Spin,
    /// For ever, interrupts off: nobody ever says hello.
    Halt,
    PowerOff,
    Panic,
    Reset,
    /// An instruction no emulating KVM knows.
    Unknown,
    /// XRSTOR of what is nowhere: a page fault that nobody takes.
    FarRestore,
}

impl Deed {
    fn code(self) -> &'static [u8] {
        match self {
            // lidt of ten zero bytes behind the code (rip+2); ud2
            Self::TripleFault => &[0x0f, 0x01, 0x1d, 0x02, 0, 0, 0, 0x0f, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            // cli; jmp $
            Self::Spin => &[0xfa, 0xeb, 0xfe],
            // cli; hlt; jmp back
            Self::Halt => &[0xfa, 0xf4, 0xeb, 0xfd],
            // mov dx, 0x505; mov al, 4; out dx, al; jmp $
            Self::PowerOff => &[0x66, 0xba, 0x05, 0x05, 0xb0, 0x04, 0xee, 0xeb, 0xfe],
            // the same with 1
            Self::Panic => &[0x66, 0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xeb, 0xfe],
            // mov al, 0xfe; out 0x64, al; jmp $
            Self::Reset => &[0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe],
            // mov rax, 1 << 46; xrstor [rax]; jmp $
            Self::FarRestore => &[0x48, 0xb8, 0, 0, 0, 0, 0, 0x40, 0, 0, 0x0f, 0xae, 0x28, 0xeb, 0xfe],
            // vzeroupper
            Self::Unknown => &[0xc5, 0xf8, 0x77, 0xeb, 0xfe],
        }
    }
}

/// Writes a kernel that does `deed` into `folder`.
pub(crate) fn kernel(folder: &Path, deed: Deed) -> PathBuf {
    let code = deed.code();
    let mut file = vec![0u8; usize::try_from(CODE_OFFSET).expect("a page")];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    // The ELF header: 64-bit, little endian, an executable for x86-64, one program header behind it.
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1]);
    put(24, &CODE_AT.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 1, 0]);
    // PT_LOAD, readable and executable.
    put(64, &[1, 0, 0, 0, 5]);
    put(72, &CODE_OFFSET.to_le_bytes());
    put(80, &CODE_AT.to_le_bytes());
    put(88, &CODE_AT.to_le_bytes());
    let len = u64::try_from(code.len()).expect("a few bytes");
    put(96, &len.to_le_bytes());
    put(104, &len.to_le_bytes());
    file.extend_from_slice(code);
    let path = folder.join(format!("{deed:?}"));
    fs::write(&path, file).expect("a file of our own");
    path
}
