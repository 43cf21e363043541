# ROUNDS system calls that do nothing: user mode to the kernel's handler and back. TRAPS: calls in a round, so that
# the difference of two programs is the calls' alone.
    .globl satp
satp:
    li t0, 0x100                # the environment calls of user mode are the kernel's
    csrs medeleg, t0
    li a0, 0
    ret
    .globl main
main:
    mv s1, ra
    la t0, handler
    csrw stvec, t0
    li t0, 0x100
    csrc sstatus, t0            # sret goes to user mode
    la t0, user
    csrw sepc, t0
    li s0, ROUNDS
    sret
user:
    .rept TRAPS
    ecall
    .endr
    addi s0, s0, -1
    bnez s0, user
    li a7, 1
    ecall
    .balign 4
handler:
    bnez a7, 1f
    csrr t0, sepc
    addi t0, t0, 4
    csrw sepc, t0
    sret
1:  li a2, 0x10000000
    li a0, 0x41
    sb a0, 0(a2)
    jr s1
