// SPDX-License-Identifier: Apache-2.0
//! The emulation assist: what a KVM that emulates guest-kernel code (kvm-pvm) cannot emulate, done here.
//!
//! Such a KVM stops with an internal error, RIP still on the instruction. On hardware KVM none of this is reached:
//! `host::probe` finds out which kind is there, and this module is asked only if the machine's config says so.
//!
//! | instruction | where it comes from | what is done |
//! |---|---|---|
//! | `cc` INT3 | self-test, static calls | step over it, inject #BP |
//! | `9b` FWAIT | FPU teardown | step over it |
//! | `0f ae /4` XSAVE | context switch, signal frames | state from KVM_GET_XSAVE, merged into memory |
//! | `0f ae /5` XRSTOR | the same | memory merged into the state, KVM_SET_XSAVE |

use crate::arch::operand::{self, Instruction};
use crate::arch::tables;
use crate::memory::GuestMemory;
use crate::raw;
use kvm_bindings::{CpuId, kvm_xsave};
use kvm_ioctls::VcpuFd;
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress};

const BREAKPOINT: u8 = 3;
const GENERAL_PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;
/// A page fault's error code (Intel SDM volume 3, 4.7): the page is there, it was a write.
const PRESENT: u32 = 1;
const WRITE: u32 = 2;
const INT3: u8 = 0xcc;
const FWAIT: u8 = 0x9b;
const XSAVE_GROUP: u8 = 0xae;
const XSAVE: u8 = 4;
const XRSTOR: u8 = 5;
/// The longest an instruction can be.
const MAX_INSTRUCTION: usize = 15;
const PAGE: u64 = 4096;

/// Bytes of x87 and SSE state, and of the header after it (Intel SDM volume 1, 13.4).
const LEGACY: usize = 512;
const HEADER: usize = 64;
const STATE_LEN: usize = 4096;
/// x87 and SSE have fixed places; further components lie where CPUID leaf 0xd says.
const X87: u64 = 1;
const SSE: u64 = 2;
const LEAF: u32 = 0xd;

/// What became of an instruction KVM gave up on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mended {
    Yes,
    /// Not one of ours: the machine must end.
    No,
}

/// Where the components of the extended state lie in an XSAVE area: `(bit, offset, length)`.
#[derive(Debug, Clone)]
pub(crate) struct Layout(Vec<(u64, usize, usize)>);

impl Layout {
    /// From what KVM says the processor has; components that do not fit into one page are left out.
    pub(crate) fn new(cpuid: &CpuId) -> Self {
        let component = |e: &kvm_bindings::kvm_cpuid_entry2| {
            let (offset, len) = (usize::try_from(e.ebx).ok()?, usize::try_from(e.eax).ok()?);
            let fits = len > 0 && offset >= LEGACY + HEADER && offset + len <= STATE_LEN;
            fits.then_some((1u64 << e.index, offset, len))
        };
        let leaf = |e: &&kvm_bindings::kvm_cpuid_entry2| e.function == LEAF && (2..64).contains(&e.index);
        Self(cpuid.as_slice().iter().filter(leaf).filter_map(component).collect())
    }
}

/// Does the instruction at RIP, if it is one of ours.
pub(crate) fn mend(
    vcpu: &VcpuFd,
    memory: &GuestMemory,
    layout: &Layout,
) -> Result<Mended, kvm_ioctls::Error> {
    let regs = vcpu.get_regs()?;
    let bytes = instruction_bytes(vcpu, memory, regs.rip);
    match bytes.first() {
        Some(&INT3) => {
            skip(vcpu, 1)?;
            inject(vcpu, BREAKPOINT, None)?;
            return Ok(Mended::Yes);
        }
        Some(&FWAIT) => {
            skip(vcpu, 1)?;
            return Ok(Mended::Yes);
        }
        _ => {}
    }
    let Some(instruction) = operand::decode(&bytes, &regs) else {
        return Ok(Mended::No);
    };
    let mask = regs.rdx << 32 | regs.rax & 0xffff_ffff;
    match instruction {
        Instruction { opcode: XSAVE_GROUP, extension: XSAVE, .. } => {
            save(vcpu, memory, layout, instruction, mask)
        }
        Instruction { opcode: XSAVE_GROUP, extension: XRSTOR, .. } => {
            restore(vcpu, memory, layout, instruction, mask)
        }
        _ => Ok(Mended::No),
    }
}

/// The bytes at `rip`, fewer than an instruction's if the next page is not there.
pub(crate) fn instruction_bytes(vcpu: &VcpuFd, memory: &GuestMemory, rip: u64) -> Vec<u8> {
    let mut bytes = vec![0; MAX_INSTRUCTION];
    let Err(fault) = access(vcpu, memory, rip, Access::Read(&mut bytes)) else {
        return bytes;
    };
    bytes.truncate(usize::try_from(fault.wrapping_sub(rip)).unwrap_or(0));
    bytes
}

fn save(
    vcpu: &VcpuFd,
    memory: &GuestMemory,
    layout: &Layout,
    instruction: Instruction,
    mask: u64,
) -> Result<Mended, kvm_ioctls::Error> {
    let state = area_of(&vcpu.get_xsave()?);
    let mut image = vec![0; STATE_LEN];
    let wanted = mask & components(layout);
    let end = extent(layout, wanted);
    if let Err(address) = access(vcpu, memory, instruction.address, Access::Read(&mut image[..end])) {
        return fault(vcpu, address, WRITE);
    }
    let sregs = vcpu.get_sregs()?;
    if let Some(address) = tables::read_only(memory, &sregs, instruction.address, end) {
        return fault(vcpu, address, PRESENT | WRITE);
    }
    merge(&mut image, &state, layout, wanted);
    if let Err(address) = access(vcpu, memory, instruction.address, Access::Write(&image[..end])) {
        return fault(vcpu, address, WRITE);
    }
    skip(vcpu, instruction.length)?;
    Ok(Mended::Yes)
}

fn restore(
    vcpu: &VcpuFd,
    memory: &GuestMemory,
    layout: &Layout,
    instruction: Instruction,
    mask: u64,
) -> Result<Mended, kvm_ioctls::Error> {
    let wanted = mask & components(layout);
    let mut image = vec![0; STATE_LEN];
    let end = extent(layout, wanted);
    if let Err(address) = access(vcpu, memory, instruction.address, Access::Read(&mut image[..end])) {
        return fault(vcpu, address, 0);
    }
    let mut state = area_of(&vcpu.get_xsave()?);
    merge(&mut state, &image, layout, wanted);
    if let Err(error) = raw::set_xsave(vcpu, &xsave_of(&state)) {
        if error.errno() != Errno::INVAL.raw_os_error() {
            return Err(error);
        }
        // Reserved bits, as a signal frame that somebody has written to can have: the guest's to answer for.
        inject(vcpu, GENERAL_PROTECTION, Some(0))?;
        return Ok(Mended::Yes);
    }
    skip(vcpu, instruction.length)?;
    Ok(Mended::Yes)
}

fn components(layout: &Layout) -> u64 {
    layout.0.iter().fold(X87 | SSE, |all, (bit, ..)| all | bit)
}

/// How long an area is that holds the components `wanted`.
fn extent(layout: &Layout, wanted: u64) -> usize {
    let ends = layout.0.iter().filter(|(bit, ..)| wanted & bit != 0).map(|(_, offset, len)| offset + len);
    ends.max().unwrap_or(LEGACY + HEADER)
}

/// Takes the components `wanted` from `from`: their bytes, and whether they are in use (XSTATE_BV).
fn merge(into: &mut [u8], from: &[u8], layout: &Layout, wanted: u64) {
    let mut copy =
        |offset: usize, len: usize| into[offset..offset + len].copy_from_slice(&from[offset..offset + len]);
    if wanted & X87 != 0 {
        copy(0, 24);
        copy(32, 128);
    }
    if wanted & SSE != 0 {
        copy(24, 8);
        copy(160, 256);
    }
    for (_, offset, len) in layout.0.iter().filter(|(bit, ..)| wanted & bit != 0) {
        copy(*offset, *len);
    }
    let in_use = |area: &[u8]| {
        u64::from_le_bytes(area[LEGACY..LEGACY + 8].try_into().expect("the header is inside the area"))
    };
    let bits = in_use(into) & !wanted | in_use(from) & wanted;
    into[LEGACY..LEGACY + 8].copy_from_slice(&bits.to_le_bytes());
}

fn area_of(xsave: &kvm_xsave) -> Vec<u8> {
    xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn xsave_of(area: &[u8]) -> kvm_xsave {
    let mut xsave = kvm_xsave::default();
    for (word, bytes) in xsave.region.iter_mut().zip(area.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().expect("chunks of four"));
    }
    xsave
}

enum Access<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
}

/// Reads or writes guest-virtual memory, page by page; an error is the first address that is not there.
fn access(vcpu: &VcpuFd, memory: &GuestMemory, address: u64, mut what: Access<'_>) -> Result<(), u64> {
    let len = match &what {
        Access::Read(bytes) => bytes.len(),
        Access::Write(bytes) => bytes.len(),
    };
    let mut done = 0;
    while done < len {
        let at = address.wrapping_add(done as u64);
        let in_page = usize::try_from(PAGE - at % PAGE).unwrap_or(1);
        let n = in_page.min(len - done);
        let translation = vcpu.translate_gva(at).ok().filter(|t| t.valid != 0).ok_or(at)?;
        let guest = GuestAddress(translation.physical_address);
        let moved = match &mut what {
            Access::Read(bytes) => memory.read_slice(&mut bytes[done..done + n], guest),
            Access::Write(bytes) => memory.write_slice(&bytes[done..done + n], guest),
        };
        moved.map_err(|_| at)?;
        done += n;
    }
    Ok(())
}

/// The guest's own page fault, which its kernel has a fix-up for where user memory is meant.
fn fault(vcpu: &VcpuFd, address: u64, code: u32) -> Result<Mended, kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    sregs.cr2 = address;
    vcpu.set_sregs(&sregs)?;
    inject(vcpu, PAGE_FAULT, Some(code))?;
    Ok(Mended::Yes)
}

fn skip(vcpu: &VcpuFd, length: u64) -> Result<(), kvm_ioctls::Error> {
    let mut regs = vcpu.get_regs()?;
    regs.rip = regs.rip.wrapping_add(length);
    vcpu.set_regs(&regs)
}

fn inject(vcpu: &VcpuFd, exception: u8, error_code: Option<u32>) -> Result<(), kvm_ioctls::Error> {
    let mut events = vcpu.get_vcpu_events()?;
    events.exception.injected = 1;
    events.exception.nr = exception;
    events.exception.has_error_code = u8::from(error_code.is_some());
    events.exception.error_code = error_code.unwrap_or(0);
    vcpu.set_vcpu_events(&events)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(fill: u8, in_use: u64) -> Vec<u8> {
        let mut bytes = vec![fill; STATE_LEN];
        bytes[LEGACY..LEGACY + 8].copy_from_slice(&in_use.to_le_bytes());
        bytes
    }

    #[test]
    fn only_the_components_asked_for_move_and_with_them_their_in_use_bits() {
        let avx = Layout(vec![(4, 576, 256)]);
        let mut into = area(1, 0b011);
        merge(&mut into, &area(2, 0b100), &avx, 0b101);
        assert_eq!(into[LEGACY], 0b110);
        assert_eq!((into[0], into[24], into[160], into[576], into[832]), (2, 1, 1, 2, 1));
    }

    #[test]
    fn state_survives_the_way_to_bytes_and_back() {
        let bytes: Vec<u8> = (0..4096u32).map(|n| n.to_le_bytes()[0]).collect();
        assert_eq!(area_of(&xsave_of(&bytes)), bytes);
    }
}
