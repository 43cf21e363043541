# The begin of every bench program: a stack, then main, then the finisher. S_MODE: main runs in S mode under the page
# tables that `satp` (a C function, called in M mode) makes.
    .section .text.start, "ax"
    .globl _start
_start:
    la sp, stack_end
    li t0, 0x6000               # floating point on
    csrs mstatus, t0
#ifdef S_MODE
    li t0, -1                   # S mode may use all of memory
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    call satp
    csrw satp, a0
    sfence.vma
    li t0, 0x1800
    csrc mstatus, t0
    li t0, 0x0800
    csrs mstatus, t0
    la t0, 1f
    csrw mepc, t0
    mret
1:
#endif
    call main
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
2:  j 2b
    .bss
    .balign 16
    .space 65536
stack_end:
