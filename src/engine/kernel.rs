// SPDX-License-Identifier: Apache-2.0
//! The guest kernel: where it is found, and whether it is one.

use crate::error::{EngineError, Kind, Result};
use crate::hex;
use crate::memo::{self, Before};
use sha2::{Digest, Sha256};
use std::env;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub(crate) const VARIABLE: &str = "ISOPOD_KERNEL";
const INSTALLED: &str = "/usr/lib/isopod/vmlinux";
pub(crate) const CURE: &str = "build one with `cargo xtask kernel`, or name one with --kernel or $ISOPOD_KERNEL (an uncompressed vmlinux)";

/// Bytes read at a time to hash it.
const PIECE: usize = 256 * 1024;

/// An open kernel and the path it came from, which is for people to read.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

impl Kernel {
    /// The SHA-256 of the file, read once for each state of it.
    pub(crate) fn hash(&self, run_root: &Path) -> Result<String> {
        // One memo a place, and not a path's worth of file name.
        let place = hex::short(Sha256::digest(self.path.as_os_str().as_encoded_bytes()));
        let memo = run_root.join("kernels").join(place);
        if let Some(hash) = memo::recall(&memo, &self.file) {
            return Ok(hash);
        }
        let before = Before::of(&self.file);
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            let read = self.file.read_at(&mut piece, at);
            let read = read.map_err(EngineError::io(format!("cannot read {}", self.path.display())))?;
            if read == 0 {
                break;
            }
            hash.update(&piece[..read]);
            at += read as u64;
        }
        let hash = hex::hex(hash.finalize());
        memo::remember(&memo, &before, &hash);
        Ok(hash)
    }
}

/// The kernel that was named, or the first that is there.
pub(crate) fn find(named: Option<&Path>) -> Result<Kernel> {
    let named = named
        .map(Path::to_path_buf)
        .or_else(|| env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from));
    let found = named.or_else(|| Some(PathBuf::from(INSTALLED)).filter(|p| p.is_file()));
    let Some(path) = found.or_else(isopod_kernel_config::cached_path) else {
        return Err(EngineError::new(Kind::Unavailable, "no guest kernel was found").hint(CURE));
    };
    let what = format!("cannot use the guest kernel {}", path.display());
    let unusable = |e: io::Error| EngineError::new(Kind::Unavailable, what.clone()).because(e).hint(CURE);
    let file = File::open(&path).map_err(unusable)?;
    let len = file.metadata().map_err(unusable)?.len();
    check(&file, len).map_err(unusable)?;
    Ok(Kernel { file, path })
}

const ELF64_LITTLE: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const MAX_PROGRAM_HEADERS: u16 = 128;

/// An ELF64 of x86_64 whose segments and section table are all inside the file.
fn check(file: &File, len: u64) -> io::Result<()> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut header = [0; HEADER];
    if len < 64 {
        return Err(bad("it is too short to be an ELF file"));
    }
    file.read_exact_at(&mut header, 0)?;
    if header[..6] != ELF64_LITTLE {
        return Err(bad("it is not a 64-bit ELF file (a bzImage must be unpacked first)"));
    }
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if half(18) != EM_X86_64 {
        return Err(bad("it is not for x86_64"));
    }
    let (programs, sections) = (long(&header, 32), long(&header, 40));
    let count = half(56);
    if count == 0 || count > MAX_PROGRAM_HEADERS || usize::from(half(54)) != PROGRAM_HEADER {
        return Err(bad("it has no program headers to load it by"));
    }
    let cut = || bad("it is cut off: build or copy it again");
    let inside = |offset: u64, size: u64| offset.checked_add(size).is_some_and(|end| end <= len);
    if sections != 0 && !inside(sections, u64::from(half(58)) * u64::from(half(60))) {
        return Err(cut());
    }
    let mut table = vec![0; usize::from(count) * PROGRAM_HEADER];
    file.read_exact_at(&mut table, programs).map_err(|_| cut())?;
    for entry in table.chunks_exact(PROGRAM_HEADER) {
        if entry[..4] == PT_LOAD.to_le_bytes() && !inside(long(entry, 8), long(entry, 32)) {
            return Err(cut());
        }
    }
    Ok(())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(u64::MAX, |b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// An ELF with one segment of 16 bytes at its end.
    fn elf() -> Vec<u8> {
        let mut bytes = vec![0; HEADER + PROGRAM_HEADER + 16];
        bytes[..6].copy_from_slice(&ELF64_LITTLE);
        bytes[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&PT_LOAD.to_le_bytes());
        bytes[72..80].copy_from_slice(&120u64.to_le_bytes());
        bytes[96..104].copy_from_slice(&16u64.to_le_bytes());
        bytes
    }

    fn checked(bytes: &[u8]) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinux");
        fs::write(&path, bytes).unwrap();
        find(Some(&path)).map(|_| ())
    }

    #[test]
    fn a_whole_elf_passes() {
        checked(&elf()).unwrap();
    }

    #[test]
    fn every_truncation_is_noticed() {
        let whole = elf();
        for len in 0..whole.len() {
            assert!(checked(&whole[..len]).is_err(), "cut to {len} bytes");
        }
    }

    #[test]
    fn any_byte_may_be_wrong_without_a_panic() {
        for at in 0..HEADER + PROGRAM_HEADER {
            let mut bytes = elf();
            bytes[at] = 0xff;
            let _ = checked(&bytes);
        }
    }

    #[test]
    fn other_files_are_refused_with_a_cure() {
        let mut arm = elf();
        arm[18] = 183;
        for bytes in [&b"MZ\xea"[..], &[0; 200], &arm] {
            let error = checked(bytes).unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable);
            assert!(error.advice().unwrap().contains("cargo xtask kernel"));
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = find(Some(Path::new("/nonexistent/vmlinux"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/vmlinux"), "{error}");
    }
}
