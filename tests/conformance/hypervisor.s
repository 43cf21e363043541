# What surrounds every program of test_hypervisor.py: five modes, two-stage tables, and a log of every trap.
# A template: hypervisor.py fills the words in braces.
#
#   ecall with a7 = SWITCH + n goes on in mode n: 3 M, 1 HS, 0 U, 5 VS, 4 VU.  VU runs at an alias of the same memory
#   (bit 32 of the address) that has U set in the first stage; pc, gp and s10 change with it.

.equ SWITCH, 0x5200
.equ DONE, 0x5300
.org 0x80000000
.globl _start
_start:
    la t0, machine_trap
    csrw mtvec, t0
    la t0, supervisor_trap
    csrw stvec, t0
    la t0, guest_trap
    csrw vstvec, t0
    la t0, machine_save
    csrw mscratch, t0
    la t0, supervisor_save
    csrw sscratch, t0
    la t0, guest_save
    csrw vsscratch, t0
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    csrw mie, zero
    csrw mip, zero
    csrw hvip, zero
    csrw mideleg, zero          # QEMU gives it its read-only bits when it is written
    li t0, 0x2004000            # mtimecmp: no timer
    li t1, -1
    sd t1, 0(t0)
    csrw stimecmp, t1
    csrw vstimecmp, t1
    la t0, guest_root
    srli t0, t0, 12
    li t1, 8 << 60
    or t0, t0, t1
    csrw vsatp, t0
    la t0, second_root
    srli t0, t0, 12
    or t0, t0, t1
    csrw hgatp, t0
    hfence.gvma
    hfence.vvma
    la gp, output
    la s10, arena
    la s11, nowhere
    li t0, 0x40000000
    add s9, t0, zero            # the window's first guest virtual address
    j body

# A handler logs its mode's view of the trap in 12 words and goes on behind the instruction; after a failed fetch at s11.

.balign 64
machine_trap:
    csrrw sp, mscratch, sp
    sd t0, 0(sp)
    sd t1, 8(sp)
    csrr t0, mcause
    addi t0, t0, -8
    sltiu t0, t0, 4
    beqz t0, 1f
    li t0, DONE
    beq a7, t0, done
    srli t0, a7, 8
    li t1, SWITCH >> 8
    beq t0, t1, switch
1:  la t0, log_next
    ld t1, 0(t0)
    li t0, 3
    sd t0, 0(t1)
    csrr t0, mcause
    sd t0, 8(t1)
    csrr t0, mepc
    sd t0, 16(t1)
    csrr t0, mtval
    sd t0, 24(t1)
    csrr t0, mstatus
    sd t0, 32(t1)
    csrr t0, mtval2
    sd t0, 40(t1)
    csrr t0, mtinst
    sd t0, 48(t1)
    csrr t0, hstatus
    sd t0, 56(t1)
    csrr t0, mip
    sd t0, 64(t1)
    csrr t0, vsstatus
    sd t0, 72(t1)
    addi t1, t1, 96
    la t0, log_next
    sd t1, 0(t0)
    la t0, log_end
    bgeu t1, t0, done
    csrr t0, mcause
    bltz t0, machine_interrupt
    csrr t1, mepc
    addi t1, t1, 4
    li t0, 0x101003             # causes of a failed fetch
    csrr t1, mcause
    srl t0, t0, t1
    andi t0, t0, 1
    csrr t1, mepc
    addi t1, t1, 4
    beqz t0, 2f
    mv t1, s11
2:  csrw mepc, t1
machine_return:
    ld t0, 0(sp)
    ld t1, 8(sp)
    csrrw sp, mscratch, sp
    mret
machine_interrupt:
    li t1, 1
    sll t1, t1, t0
    csrc mie, t1
    j machine_return
switch:
    # Out of VU or into it: the alias.
    csrr t0, mepc
    addi t0, t0, 4
    srli t1, t0, 32
    slli t1, t1, 32             # bit 32 if we come from the alias
    xor t0, t0, t1
    xor gp, gp, t1
    xor s10, s10, t1
    xor s11, s11, t1
    andi t1, a7, 7
    addi t1, t1, -4
    seqz t1, t1
    slli t1, t1, 32
    xor t0, t0, t1
    xor gp, gp, t1
    xor s10, s10, t1
    xor s11, s11, t1
    csrw mepc, t0
    li t0, 0x1800
    csrc mstatus, t0
    li t0, 1 << 39
    csrc mstatus, t0
    andi t1, a7, 3
    slli t1, t1, 11
    csrs mstatus, t1
    srli t1, a7, 2
    andi t1, t1, 1
    slli t1, t1, 39
    csrs mstatus, t1
    j machine_return

.balign 64
supervisor_trap:
    csrrw sp, sscratch, sp
    sd t0, 0(sp)
    sd t1, 8(sp)
    la t0, log_next
    ld t1, 0(t0)
    li t0, 1
    sd t0, 0(t1)
    csrr t0, scause
    sd t0, 8(t1)
    csrr t0, sepc
    sd t0, 16(t1)
    csrr t0, stval
    sd t0, 24(t1)
    csrr t0, sstatus
    sd t0, 32(t1)
    csrr t0, htval
    sd t0, 40(t1)
    csrr t0, htinst
    sd t0, 48(t1)
    csrr t0, hstatus
    sd t0, 56(t1)
    csrr t0, hip
    sd t0, 64(t1)
    csrr t0, vsstatus
    sd t0, 72(t1)
    addi t1, t1, 96
    la t0, log_next
    sd t1, 0(t0)
    csrr t0, scause
    bltz t0, supervisor_interrupt
    li t0, 0x101003
    csrr t1, scause
    srl t0, t0, t1
    andi t0, t0, 1
    csrr t1, sepc
    addi t1, t1, 4
    beqz t0, 2f
    mv t1, s11
2:  csrw sepc, t1
supervisor_return:
    ld t0, 0(sp)
    ld t1, 8(sp)
    csrrw sp, sscratch, sp
    sret
supervisor_interrupt:
    li t1, 1
    sll t1, t1, t0
    csrc sie, t1
    csrc hie, t1
    j supervisor_return

.balign 64
guest_trap:
    csrrw sp, sscratch, sp
    sd t0, 0(sp)
    sd t1, 8(sp)
    la t0, log_next
    ld t1, 0(t0)
    li t0, 2
    sd t0, 0(t1)
    csrr t0, scause
    sd t0, 8(t1)
    csrr t0, sepc
    sd t0, 16(t1)
    csrr t0, stval
    sd t0, 24(t1)
    csrr t0, sstatus
    sd t0, 32(t1)
    csrr t0, sip
    sd t0, 64(t1)
    csrr t0, sie
    sd t0, 72(t1)
    addi t1, t1, 96
    la t0, log_next
    sd t1, 0(t0)
    li t0, DONE
    beq a7, t0, nowhere         # it cannot call M mode by itself where its calls are delegated
    csrr t0, scause
    bltz t0, guest_interrupt
    li t0, 0x1003
    csrr t1, scause
    srl t0, t0, t1
    andi t0, t0, 1
    csrr t1, sepc
    addi t1, t1, 4
    beqz t0, 2f
    mv t1, s11
2:  csrw sepc, t1
guest_return:
    ld t0, 0(sp)
    ld t1, 8(sp)
    csrrw sp, sscratch, sp
    sret
guest_interrupt:
    li t1, 1
    sll t1, t1, t0
    csrc sie, t1
    j guest_return

nowhere:
    li a7, DONE
    ecall
done:
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
1:  j 1b

body:
{body}
    li a7, DONE
    ecall

.data
.balign 16384
second_root:                    # guest physical: RAM as it is, the window at 0x40000000, nothing else
    .dword 0
    .dword (second_middle >> 12) << 10 | 1
    .dword 0x80000000 >> 12 << 10 | 0xdf
    .zero 16384 - 24
second_middle:
    .dword (second_leaves >> 12) << 10 | 1
    .zero 4096 - 8
second_leaves:
{second_leaves}
.balign 4096
guest_root:                     # guest virtual: RAM as it is, the window, RAM again with U
    .dword 0
    .dword (guest_middle >> 12) << 10 | 1
    .dword 0x80000000 >> 12 << 10 | 0xcf
    .zero 24
    .dword 0x80000000 >> 12 << 10 | 0xdf
    .zero 4096 - 56
guest_middle:
    .dword (guest_leaves >> 12) << 10 | 1
    .zero 4096 - 8
guest_leaves:
{guest_leaves}
.balign 4096
arena:
{arena}
.balign 4096
machine_save: .zero 64
supervisor_save: .zero 64
guest_save: .zero 64
log_next: .dword log
.balign 64
output: .zero {output_size}
log: .zero {log_size}
log_end:
    .zero 96
signature_end:
