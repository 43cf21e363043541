# Two harts: the boot hart (either, firmware decides) starts the other through SBI HSM, both count under a
# spinlock, and the other sends an IPI back.
.globl _start
_start:
    mv   s0, a0
    la   sp, stack0
    li   t0, 1
    sub  a0, t0, s0          # the other hart
    la   a1, second
    mv   a2, s0              # it gets our id as its a1
    li   a6, 0
    li   a7, 0x48534D
    ecall
    bnez a0, fail
    # enable software interrupts, wait for the IPI
    la   t0, handler
    csrw stvec, t0
    csrsi sie, 2
    csrsi sstatus, 2
    jal  count
1:  csrci sstatus, 2        # look and sleep with interrupts off, so that no wake-up is lost between
    la   t0, got
    lw   t1, 0(t0)
    bnez t1, 4f
    wfi
    csrsi sstatus, 2
    j    1b
4:  csrsi sstatus, 2
2:  la   t0, done
    lw   t1, 0(t0)
    beqz t1, 2b
    la   t0, counter
    lw   t1, 0(t0)
    li   t2, 2000
    bne  t1, t2, fail
    la   a0, ok
    jal  puts
    li   a0, 0
    li   a1, 0
    li   a6, 0
    li   a7, 0x53525354
    ecall
fail:
    li   a0, 0
    li   a1, 1
    li   a6, 0
    li   a7, 0x53525354
    ecall
second:
    la   sp, stack1
    mv   s0, a1
    jal  count
    li   a0, 1
    sll  a0, a0, s0          # hart mask: whoever started us
    li   a1, 0
    li   a6, 0
    li   a7, 0x735049
    ecall
    la   t0, done
    li   t1, 1
    fence
    sw   t1, 0(t0)
3:  wfi
    j 3b
handler:
    csrci sip, 2
    la   t5, got
    li   t6, 1
    sw   t6, 0(t5)
    sret
count:
    li   t0, 1000
    la   t1, lock
    la   t2, counter
1:  li   t3, 1
2:  amoswap.w t4, t3, (t1)
    bnez t4, 2b
    lw   t5, 0(t2)
    addi t5, t5, 1
    sw   t5, 0(t2)
    fence
    amoswap.w zero, zero, (t1)
    addi t0, t0, -1
    bnez t0, 1b
    ret
puts:
    li   t0, 0x10000000
1:  lbu  t1, 0(a0)
    beqz t1, 2f
    sb   t1, 0(t0)
    addi a0, a0, 1
    j 1b
2:  ret
.data
ok: .asciz "both harts counted\n"
.align 3
lock: .word 0
counter: .word 0
got: .word 0
done: .word 0
.align 4
.space 256
stack0: .space 256
stack1: .word 0
