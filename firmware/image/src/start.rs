//! The entries, in assembly: everything that has to happen before compiled Rust may run.
//!
//! Two ways in, one `main`:
//! - `entry64`, named by the ELF header: 64-bit mode at CPL 3 with paging
//!   on and a TSS that allows port I/O, as the harness starts a vCPU. KVM without hardware support
//!   emulates CPL 0 one instruction at a time and knows no SSE there; CPL 3 runs natively.
//! - `entry32`, named by the PVH note: 32-bit protected mode without paging, from any VMM. It stays
//!   at CPL 0 unless the command line holds the word `ring3`.
//!
//! **Invariant**: no compiled code runs before SSE is enabled and a stack is set, and at CPL 0 as
//! little runs as can be: each instruction may cost a microsecond there.

use core::arch::global_asm;

use crate::paging::Pages;

/// Bytes of stack. The library's structures live in statics; see `main`.
pub(crate) const STACK_SIZE: usize = 256 * 1024;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 18              /* name size, description size, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long entry32

    .section .text.entry, "ax", @progbits
    .code64
    .global entry64
entry64:                        /* rdi: start-info, rsi: top-level page table */
    lea rsp, [rip + {stack} + {stack_size}]
    xor ebp, ebp
    mov edx, 3
    call {main}
1:  jmp 1b

    .code32
entry32:                        /* ebx: start-info; flat segments of somebody else's GDT */
    cli
    cld
    lgdt [gdt_pointer]
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax

    /* One gibibyte in 2 MiB pages; what lies above is mapped when it is needed. */
    mov edi, offset {tables} + 0x2000
    mov eax, 0x87               /* present, writable, user, large */
    mov ecx, 512
2:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 2b
    mov eax, offset {tables} + 0x1007
    mov [{tables}], eax
    add eax, 0x1000
    mov [{tables} + 0x1000], eax
    mov eax, offset {tables}
    mov cr3, eax

    mov eax, 0x620              /* PAE, OSFXSR, OSXMMEXCPT */
    mov cr4, eax
    mov ecx, 0xC0000080         /* EFER */
    rdmsr
    or eax, 0x101               /* LME, SCE */
    wrmsr
    mov eax, 0x80050033         /* PG, AM, WP, NE, ET, MP, PE: no EM, no TS */
    mov cr0, eax
    /* The far jump to 64-bit code. */
    .byte 0xEA
    .long 3f
    .word 0x08

    .code64
3:  lea rsp, [rip + {stack} + {stack_size}]
    xor ebp, ebp
    mov edi, ebx
    /* Does the command line hold the word "ring3"? */
    mov rsi, [rdi + 0x18]
    test rsi, rsi
    jz 6f
    mov ecx, 4096
4:  cmp byte ptr [rsi], 0
    je 6f
    cmp dword ptr [rsi], 0x676E6972     /* "ring" */
    jne 5f
    cmp byte ptr [rsi + 4], 0x33        /* "3" */
    je 7f
5:  inc rsi
    dec ecx
    jnz 4b
6:  lea rsi, [rip + {tables}]
    xor edx, edx
    call {main}
    jmp 6b

    /* To CPL 3: a TSS whose bitmap allows every port, then an interrupt return. */
7:  lea rax, [rip + {tss}]
    lea rcx, [rip + gdt_tss]
    mov word ptr [rcx], 0x2068
    mov [rcx + 2], ax
    shr rax, 16
    mov [rcx + 4], al
    mov byte ptr [rcx + 5], 0x89
    mov [rcx + 7], ah
    shr rax, 16
    mov [rcx + 8], eax
    lea rax, [rip + {tss}]
    mov word ptr [rax + 0x66], 0x68
    mov byte ptr [rax + 0x2068], 0xFF
    mov ax, 0x28
    ltr ax
    /* XSAVE for x87 and SSE, where the processor has it; CPL 3 cannot switch it on. */
    mov eax, 1
    cpuid
    test ecx, 1 << 26
    jz 9f
    mov rax, cr4
    or eax, 1 << 18             /* OSXSAVE */
    mov cr4, rax
    xor ecx, ecx                /* XCR0 */
    xor edx, edx
    mov eax, 3
    xsetbv
9:
    lea rax, [rip + {stack} + {stack_size}]
    push 0x1B                   /* SS */
    push rax                    /* RSP */
    push 0x3002                 /* RFLAGS: IOPL 3 */
    push 0x23                   /* CS */
    lea rax, [rip + 8f]
    push rax
    iretq
8:  lea rsi, [rip + {tables}]
    mov edx, 3
    call {main}
    jmp 8b

    .section .data.gdt, "aw", @progbits
    .align 16
gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF    /* 0x08 code, 64-bit, CPL 0 */
    .quad 0x00CF93000000FFFF    /* 0x10 data, CPL 0 */
    .quad 0x00CFF3000000FFFF    /* 0x18 data, CPL 3 */
    .quad 0x00AFFB000000FFFF    /* 0x20 code, 64-bit, CPL 3 */
gdt_tss:
    .quad 0, 0                  /* 0x28 TSS */
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
"#,
    main = sym crate::main,
    stack = sym STACK,
    stack_size = const STACK_SIZE,
    tables = sym crate::paging::TABLES,
    tss = sym TSS,
);

/// The stack, growing down from its end.
static mut STACK: Pages<STACK_SIZE> = Pages([0; STACK_SIZE]);
/// The task state segment of the PVH entry: 0x68 bytes, the I/O bitmap, and its last byte of ones.
static mut TSS: Pages<0x3000> = Pages([0; 0x3000]);
