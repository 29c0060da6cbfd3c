// SPDX-License-Identifier: Apache-2.0
//! From where the machine enters a kernel to user mode, where a KVM that emulates runs code natively.
//!
//! The machine maps the first GiB for the kernel alone; the devices' windows are in the fourth. So the tables here map
//! four GiB to themselves, in pages of 2 MiB, for user mode. There no interrupt ever comes. The one way back is UD2, behind
//! which is done what user mode may not do everywhere (ports, to halt), and registers in batches: where KVM emulates, an
//! access costs 50 µs from user mode and 10 µs from here. Any other fault is a triple fault, and its address is told.

use core::arch::{asm, global_asm};

global_asm!(
    r#"
    .section .text.entry, "ax"
    .global entry
entry:
    cli
    lea rsp, [rip + stack_top]

    // One table of four entries, one above it of one, and four below it of 512 pages each.
    lea rdi, [rip + pages]
    mov rax, 0x87
    mov rcx, 2048
2:  mov [rdi], rax
    add rdi, 8
    add rax, 0x200000
    dec rcx
    jnz 2b
    lea rdi, [rip + quarters]
    lea rax, [rip + pages]
    or rax, 7
    mov rcx, 4
3:  mov [rdi], rax
    add rdi, 8
    add rax, 0x1000
    dec rcx
    jnz 3b
    lea rdi, [rip + top]
    lea rax, [rip + quarters]
    or rax, 7
    mov [rdi], rax
    mov cr3, rdi

    lea rax, [rip + gdt]
    mov [rip + gdt_pointer + 2], rax
    lgdt [rip + gdt_pointer]
    lea rax, [rip + tss]
    mov [rip + tss_descriptor + 2], ax
    shr rax, 16
    mov [rip + tss_descriptor + 4], al
    mov [rip + tss_descriptor + 7], ah
    lea rax, [rip + stack_top]
    mov [rip + tss + 4], rax
    mov ax, 0x38
    ltr ax
    lea rax, [rip + called]
    mov [rip + gate], ax
    shr rax, 16
    mov [rip + gate + 6], ax
    lea rax, [rip + idt]
    mov [rip + idt_pointer + 2], rax
    lidt [rip + idt_pointer]
    // OSFXSR and OSXMMEXCPT
    mov rax, cr4
    or rax, 0x600
    mov cr4, rax

    push 0x2b
    // As after a call
    lea rax, [rip + stack_top - 8]
    push rax
    // Interrupts off
    push 0x2
    push 0x33
    lea rax, [rip + main]
    push rax
    iretq

    // What is wanted is in R8. UD2 has two bytes.
called:
    add qword ptr [rsp], 2
    cmp r8d, 1
    jne 2f
4:  mov rdi, [rsi]
    mov eax, [rsi + 8]
    mov [rdi], eax
    add rsi, 16
    dec rcx
    jnz 4b
    mov eax, [rdx]
    iretq
2:  cmp r8d, 2
    jne 2f
4:  mov al, [rsi]
    out dx, al
    inc rsi
    dec rcx
    jnz 4b
    iretq
2:  cmp r8d, 3
    jne 2f
4:  in al, dx
    mov [rsi], al
    add rsi, 1
    inc edx
    dec rcx
    jnz 4b
    iretq
2:  cmp r8d, 4
    jne 2f
4:  in ax, dx
    mov [rsi], ax
    add rsi, 2
    inc edx
    dec rcx
    jnz 4b
    iretq
2:  cmp r8d, 5
    jne 2f
4:  in eax, dx
    mov [rsi], eax
    add rsi, 4
    inc edx
    dec rcx
    jnz 4b
    iretq
2:  cmp r8d, 6
    jne 2f
4:  out dx, al
    inc edx
    dec rcx
    jnz 4b
    iretq
2:  cmp r8d, 7
    jne 2f
4:  out dx, ax
    inc edx
    dec rcx
    jnz 4b
    iretq
2:  cmp r8d, 8
    jne 2f
4:  out dx, eax
    inc edx
    dec rcx
    jnz 4b
    iretq
2:  cli
    hlt
    jmp 2b

    .section .data
    .balign 8
gdt:
    .quad 0
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0
    .quad 0x00cff3000000ffff
    .quad 0x00affb000000ffff
tss_descriptor:
    .quad 0x0000890000000067
    .quad 0
gdt_pointer:
    .word 71
    .quad 0
    .balign 8
idt:
    .skip 96
gate:
    .quad 0x00008e0000100000
    .quad 0
idt_pointer:
    .word 111
    .quad 0
    .balign 16
tss:
    .skip 102
    .word 104

    .section .bss
    .balign 4096
pages:
    .skip 0x4000
quarters:
    .skip 0x1000
top:
    .skip 0x1000
stack:
    .skip 0x100000
stack_top:
    .skip 16
"#
);

/// What the kernel's side does for user mode.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    /// For good, and at no cost to the host.
    Halt,
    /// Writes to `count` registers, pairs of an address and a value at `at`; then reads the one at `place`.
    Registers,
    /// `count` bytes from `at` to the port `place`.
    Say,
    /// As many ports from `place` on, into memory at `at`; in each width.
    In8,
    In16,
    In32,
    /// The same value to as many ports from `place` on.
    Out8,
    Out16,
    Out32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Arguments {
    pub(crate) at: u64,
    /// Not 0, but for `Halt`.
    pub(crate) count: u64,
    pub(crate) place: u64,
    pub(crate) value: u32,
}

/// Gives what was read last.
pub(crate) fn call(call: Call, arguments: Arguments) -> u32 {
    let Arguments { at, count, place, value } = arguments;
    let mut value = u64::from(value);
    // SAFETY: the gate of UD2 leads to `called`, which changes these registers and what the caller says may be changed.
    unsafe {
        asm!("ud2", in("r8") call as u64, inout("rsi") at => _, inout("rcx") count => _, inout("rdx") place => _,
             inout("rax") value, out("rdi") _);
    }
    value as u32
}

pub(crate) fn halt() -> ! {
    loop {
        call(Call::Halt, Arguments { at: 0, count: 0, place: 0, value: 0 });
    }
}
