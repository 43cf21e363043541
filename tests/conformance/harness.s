# What surrounds every random body: preparation, trap handlers, and the state stored at the end.
# A template: programs.py fills the words in braces.

.equ MAGIC, {magic}
.equ TO_MACHINE, {to_machine}
.org {base}
.globl _start
_start:
    la t0, machine_trap
    csrw mtvec, t0
    la t0, supervisor_trap
    csrw stvec, t0
    la t0, machine_save
    csrw mscratch, t0
    la t0, supervisor_save
    csrw sscratch, t0
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    csrw mie, zero
    csrw mip, zero
    csrw mcounteren, zero
    csrw scounteren, zero
    li t0, 0x2004000            # mtimecmp: no timer
    li t1, -1
    sd t1, 0(t0)
    li t0, {large_page}         # a way back for jumps into the large page
    li t1, {way_back}
    sw t1, 16(t0)
    li t0, {medeleg}
    csrw medeleg, t0
    li t0, {mideleg}
    csrw mideleg, t0
    li t0, {satp_mode}
    beqz t0, 1f
    la t1, root_table
    srli t1, t1, 12
    or t0, t0, t1
1:  csrw satp, t0
    sfence.vma
    la t0, body
    li t1, {alias_offset}
    add t0, t0, t1
    csrw mepc, t0
    li t0, 0x1800
    csrc mstatus, t0
    li t0, 0x6000               # FS: Dirty while the registers are filled
    csrs mstatus, t0
{float_registers}
    li t0, {fcsr}
    fscsr t0
    li t0, 0x6000
    csrc mstatus, t0
    li t0, {mstatus}
    csrs mstatus, t0
{registers}
    mret

.balign 64
machine_trap:
    csrrw sp, mscratch, sp
    sd t0, 0(sp)
    sd t1, 8(sp)
    sd t2, 16(sp)
    la t0, log_next
    ld t1, 0(t0)
    la t2, log_end
    bgeu t1, t2, store_state
    csrr t2, mcause
    sd t2, 0(t1)
    csrr t2, mepc
    sd t2, 8(t1)
    csrr t2, mtval
    sd t2, 16(t1)
    csrr t2, mstatus
    sd t2, 24(t1)
    li t2, 3
    sd t2, 32(t1)
    csrr t2, mip
    sd t2, 40(t1)
    csrr t2, mcounteren
    sd t2, 48(t1)
    addi t1, t1, 64
    sd t1, 0(t0)
    csrr t0, mcause
    bltz t0, machine_interrupt
    addi t1, t0, -8
    sltiu t1, t1, 4
    beqz t1, 1f
    li t1, MAGIC
    beq a7, t1, store_state
    li t1, TO_MACHINE
    bne a7, t1, 1f
    li t1, 0x1800
    csrs mstatus, t1
1:  li t1, 0x1003
    srl t1, t1, t0
    andi t1, t1, 1
    beqz t1, 2f
    csrw mepc, s11
    j machine_return
2:  csrr t1, mepc              # past the instruction, 2 or 4 bytes; the body is at BASE or at its alias
    slli t0, t1, 34
    srli t0, t0, 34
    li t2, {base}
    add t0, t0, t2
    lhu t0, 0(t0)
    andi t0, t0, 3
    sltiu t0, t0, 3
    slli t0, t0, 1
    sub t1, t1, t0
    addi t1, t1, 4
    csrw mepc, t1
machine_return:
    ld t0, 0(sp)
    ld t1, 8(sp)
    ld t2, 16(sp)
    csrrw sp, mscratch, sp
    mret
machine_interrupt:
    li t1, 1
    sll t1, t1, t0
    csrc mie, t1
    j machine_return

.balign 64
supervisor_trap:
    csrrw sp, sscratch, sp
    sd t0, 0(sp)
    sd t1, 8(sp)
    sd t2, 16(sp)
    la t0, log_next
    ld t1, 0(t0)
    la t2, log_end
    bgeu t1, t2, supervisor_end
    csrr t2, scause
    sd t2, 0(t1)
    csrr t2, sepc
    sd t2, 8(t1)
    csrr t2, stval
    sd t2, 16(t1)
    csrr t2, sstatus
    sd t2, 24(t1)
    li t2, 1
    sd t2, 32(t1)
    csrr t2, sip
    sd t2, 40(t1)
    csrr t2, scounteren
    sd t2, 48(t1)
    addi t1, t1, 64
    sd t1, 0(t0)
    csrr t0, scause
    bltz t0, supervisor_interrupt
    addi t1, t0, -8
    bnez t1, 1f
    li t1, MAGIC
    beq a7, t1, supervisor_end
1:  li t1, 0x1003
    srl t1, t1, t0
    andi t1, t1, 1
    beqz t1, 2f
    csrw sepc, s11
    j supervisor_return
2:  csrr t1, sepc              # past the instruction, 2 or 4 bytes; the body is at BASE or at its alias
    slli t0, t1, 34
    srli t0, t0, 34
    li t2, {base}
    add t0, t0, t2
    lhu t0, 0(t0)
    andi t0, t0, 3
    sltiu t0, t0, 3
    slli t0, t0, 1
    sub t1, t1, t0
    addi t1, t1, 4
    csrw sepc, t1
supervisor_return:
    ld t0, 0(sp)
    ld t1, 8(sp)
    ld t2, 16(sp)
    csrrw sp, sscratch, sp
    sret
supervisor_interrupt:
    li t1, 1
    sll t1, t1, t0
    csrc sie, t1
    j supervisor_return
supervisor_end:
    ld t0, 0(sp)
    ld t1, 8(sp)
    ld t2, 16(sp)
    csrrw sp, sscratch, sp
    li a7, MAGIC
    ecall

.balign 64
machine_vectors:
{machine_vectors}
.balign 64
supervisor_vectors:
{supervisor_vectors}

store_state:
    ld t0, 0(sp)
    ld t1, 8(sp)
    ld t2, 16(sp)
    csrrw sp, mscratch, sp
    csrw mscratch, a0
    la a0, state
{store_registers}
    csrr t0, mscratch
    sd t0, 80(a0)
{store_csrs}
    li t0, 0x6000
    csrs mstatus, t0
    frcsr t0
    sd t0, {fcsr_offset}(a0)
    addi a0, a0, {floats_offset}
{store_floats}
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
1:  j 1b

body:
    la gp, output
    la s10, arena_middle
    la s9, arena_middle
    la s11, body_end
    li a7, 0
{body}
body_end:
    li a7, MAGIC
    ecall
1:  j 1b

.data
.balign 4096
signature:
{tables}
.balign 4096
arena:
{arena}
.balign 4096
machine_save: .zero 64
supervisor_save: .zero 64
.balign 64
log_next: .dword log
state: .zero {state_size}
.balign 64
log: .zero {log_size}
log_end:
output: .zero 16384
signature_end:
.equ arena_middle, arena + 8192
