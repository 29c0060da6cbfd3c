// SPDX-License-Identifier: Apache-2.0
//! Where an instruction's memory operand is (Intel SDM volume 2, 2.1.3 and 2.2.1): ModRM, SIB and displacement in 64-bit mode.

use kvm_bindings::kvm_regs;
use std::mem;

/// A decoded two-byte-opcode instruction with a memory operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// The byte after `0f`.
    pub(crate) opcode: u8,
    /// ModRM's middle field, which tells instructions of one opcode apart.
    pub(crate) extension: u8,
    /// The operand's linear address.
    pub(crate) address: u64,
    pub(crate) length: u64,
}

/// Decodes `[REX] 0f opcode ModRM …` with a memory operand and without legacy prefixes; `None` is anything else.
pub(crate) fn decode(bytes: &[u8], regs: &kvm_regs) -> Option<Instruction> {
    let mut at = 0;
    let mut next = || {
        at += 1;
        bytes.get(at - 1).copied()
    };
    let mut first = next()?;
    let rex = if first & 0xf0 == 0x40 { mem::replace(&mut first, next()?) } else { 0 };
    if first != 0x0f {
        return None;
    }
    let opcode = next()?;
    let modrm = next()?;
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let base_high = (rex & 1) << 3;
    let mut relative_to_next = false;
    let mut address = 0u64;
    let mut displacement = match mode {
        0 => 0,
        1 => 1,
        2 => 4,
        _ => return None,
    };
    if rm == 4 {
        let sib = next()?;
        let (scale, index, base) = (sib >> 6, sib >> 3 & 7 | (rex & 2) << 2, sib & 7);
        if index != 4 {
            address = register(regs, index) << scale;
        }
        if base == 5 && mode == 0 {
            displacement = 4;
        } else {
            address = address.wrapping_add(register(regs, base | base_high));
        }
    } else if rm == 5 && mode == 0 {
        displacement = 4;
        relative_to_next = true;
    } else {
        address = register(regs, rm | base_high);
    }
    let offset = match displacement {
        1 => i64::from(next()?.cast_signed()),
        4 => i64::from(i32::from_le_bytes([next()?, next()?, next()?, next()?])),
        _ => 0,
    };
    let length = at as u64;
    let base = if relative_to_next { regs.rip.wrapping_add(length) } else { address };
    Some(Instruction { opcode, extension: modrm >> 3 & 7, address: base.wrapping_add_signed(offset), length })
}

fn register(regs: &kvm_regs, number: u8) -> u64 {
    match number {
        0 => regs.rax,
        1 => regs.rcx,
        2 => regs.rdx,
        3 => regs.rbx,
        4 => regs.rsp,
        5 => regs.rbp,
        6 => regs.rsi,
        7 => regs.rdi,
        8 => regs.r8,
        9 => regs.r9,
        10 => regs.r10,
        11 => regs.r11,
        12 => regs.r12,
        13 => regs.r13,
        14 => regs.r14,
        _ => regs.r15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regs() -> kvm_regs {
        kvm_regs { rax: 0x100, rdi: 0x1000, rsp: 0x2000, r12: 0x3000, rip: 0x8000, ..Default::default() }
    }

    fn address(bytes: &[u8]) -> Option<(u8, u64, u64)> {
        decode(bytes, &regs()).map(|i| (i.extension, i.address, i.length))
    }

    #[test]
    fn each_form_of_operand_is_found() {
        // xsave64 (%rdi); xrstor64 (%rdi); xsave 0x40(%rdi); xsave64 0x40(%rsp); (%r12); -8(%rdi,%rax,8); rip+0x10
        assert_eq!(address(&[0x48, 0x0f, 0xae, 0x27]), Some((4, 0x1000, 4)));
        assert_eq!(address(&[0x48, 0x0f, 0xae, 0x2f]), Some((5, 0x1000, 4)));
        assert_eq!(address(&[0x0f, 0xae, 0x67, 0x40]), Some((4, 0x1040, 4)));
        assert_eq!(address(&[0x48, 0x0f, 0xae, 0x64, 0x24, 0x40]), Some((4, 0x2040, 6)));
        assert_eq!(address(&[0x49, 0x0f, 0xae, 0x24, 0x24]), Some((4, 0x3000, 5)));
        assert_eq!(address(&[0x48, 0x0f, 0xae, 0x64, 0xc7, 0xf8]), Some((4, 0x17f8, 6)));
        assert_eq!(address(&[0x48, 0x0f, 0xae, 0x25, 0x10, 0, 0, 0]), Some((4, 0x8018, 8)));
    }

    #[test]
    fn what_has_no_memory_operand_or_is_cut_off_is_nothing() {
        assert_eq!(address(&[0x0f, 0xae, 0xe8]), None);
        assert_eq!(address(&[0x48, 0x0f, 0xae, 0x25, 0x10]), None);
        assert_eq!(address(&[0x90]), None);
        assert_eq!(address(&[]), None);
    }
}
