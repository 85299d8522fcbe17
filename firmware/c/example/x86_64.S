/* The way from a PVH entry (32 bits, no paging) to boot() in 64 bits, with 2 TiB mapped one to one. */
        .section .note.pvh, "a", @note
        .balign 4
        .long 4, 4, 18                  /* of a name, of a value; XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .long start

        .text
        .code32
        .globl start
start:  cli                             /* %ebx: start-info */
        cld
        lgdt gdt_pointer
        movl $pml4, %eax
        movl %eax, %cr3
        movl $0x620, %eax               /* PAE, OSFXSR, OSXMMEXCPT: compiled code uses SSE */
        movl %eax, %cr4
        movl $0xC0000080, %ecx          /* EFER: LME */
        rdmsr
        orl $0x100, %eax
        wrmsr
        movl $0x80010033, %eax          /* PG, WP, NE, ET, MP, PE */
        movl %eax, %cr0
        ljmp $8, $1f
        .code64
1:      movl $16, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        leaq stack_end(%rip), %rsp
        movl %ebx, %edi
        call boot
2:      hlt
        jmp 2b

        .section .rodata
        .balign 8
gdt:    .quad 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long gdt

        .data
        .balign 4096
pml4:   .quad pdpt + 0x3, pdpt + 0x1003, pdpt + 0x2003, pdpt + 0x3003
        .balign 4096
pdpt:   .quad 0x83                      /* 1 GiB of memory; above, registers and windows, uncached */
        .set page, 1 << 30
        .rept 2047
        .quad page | 0x9B
        .set page, page + (1 << 30)
        .endr

        .bss
        .balign 16
stack:  .skip 65536
stack_end:
        .section .note.GNU-stack, "", @progbits
