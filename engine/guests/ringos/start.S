# The first instructions. The firmware jumps here in supervisor mode, paging off, interrupts off,
# with a0 = this hart's number and a1 = the device tree (SBI specification, chapter 3).

        .section .text.start, "ax"
        .globl  _start
_start:
        la      sp, boot_stack_end
        la      t0, bss_start
        la      t1, bss_end
1:      sd      zero, 0(t0)             # C expects its zero variables to be zero
        addi    t0, t0, 8
        bltu    t0, t1, 1b
        call    kernel_main             # never returns

        .section .stack, "aw", @nobits
        .balign 16
        .zero   4096
boot_stack_end:
