/* The way from QEMU's -kernel (EL1, no MMU) to boot(). */
        .text
        .globl start
start:  mov x1, #(3 << 20)              /* CPACR_EL1.FPEN: compiled code uses vector registers */
        msr cpacr_el1, x1
        isb
        adrp x1, stack_end
        add x1, x1, :lo12:stack_end
        mov sp, x1
        bl boot
1:      wfi
        b 1b

        .bss
        .balign 16
stack:  .skip 65536
stack_end:
        .section .note.GNU-stack, "", @progbits
