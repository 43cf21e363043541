# A guest that talks to its neighbours through virtio-net, in S mode and without an operating system.
#
# It says hello to everybody HELLOS times. For each hello it gets it prints the sender's number as a small letter and
# answers to the sender alone; for each answer it prints a capital. Between frames it sleeps.
.equ NET, 0x10002000
.equ PLIC, 0x0c000000
.equ UART, 0x10000000
.equ HELLOS, 3
.equ BUFFER, 2048
.equ RING, 8

.globl _start
_start:
    li s0, NET
    sw zero, 0x70(s0)
    li t0, 3
    sw t0, 0x70(s0)
    li t0, 1                        # VERSION_1 is bit 0 of the upper half
    sw t0, 0x24(s0)
    sw t0, 0x20(s0)
    li t0, 11
    sw t0, 0x70(s0)
    li a0, 0
    la a1, receive_queue
    call make_queue
    li a0, 1
    la a1, transmit_queue
    call make_queue
    la t0, receive_queue
    la t1, receive_available
    la t2, buffers
    li t3, 0
give:
    sd t2, 0(t0)
    li t4, BUFFER
    sw t4, 8(t0)
    li t4, 2
    sh t4, 12(t0)
    sh zero, 14(t0)
    sh t3, 4(t1)
    addi t0, t0, 16
    addi t1, t1, 2
    add t2, t2, t4
    addi t2, t2, BUFFER - 2
    addi t3, t3, 1
    li t4, RING
    bne t3, t4, give
    la t1, receive_available
    li t4, RING
    sh t4, 2(t1)
    li t0, 15
    sw t0, 0x70(s0)
    li t0, PLIC
    li t1, 1
    sw t1, 8(t0)
    li t2, PLIC + 0x2080              # of context 1, S mode
    li t1, 4
    sw t1, 0(t2)
    li t1, 1 << 9
    csrw sie, t1
    la t0, frame
    li t1, 0                        # the own address, as the source of every frame
own:
    add t2, s0, t1
    lbu t3, 0x100(t2)
    add t2, t0, t1
    sb t3, 18(t2)
    addi t1, t1, 1
    li t4, 6
    bne t1, t4, own
    mv s1, t3                       # the last byte is the number
    li s2, HELLOS
    li s3, 0                        # used entries seen

hello:
    li t0, 997                      # not all at the same time, and not before all are there
    mul t0, t0, s1
    li t1, 9973
    add t0, t0, t1
pause:
    addi t0, t0, -1
    bnez t0, pause
    la a0, everybody
    li a1, 0
    call send
    call listen
    addi s2, s2, -1
    bnez s2, hello
sleep:
    wfi
    li t0, PLIC + 0x201004
    lw t1, 0(t0)
    lw t2, 0x60(s0)
    sw t2, 0x64(s0)
    sw t1, 0(t0)
    call listen
    j sleep

listen:                             # deals with every frame that has arrived
    mv s4, ra
more:
    la t0, receive_used
    lhu t1, 2(t0)
    beq t1, s3, heard
    andi t2, s3, RING - 1
    slli t2, t2, 3
    add t2, t2, t0
    lw s5, 4(t2)                    # head, which is the number of the buffer
    li t3, BUFFER
    mul t3, t3, s5
    la s6, buffers
    add s6, s6, t3
    lbu t4, 23(s6)                  # last byte of the source
    lbu t5, 26(s6)                  # 0: a hello, 1: an answer
    li t6, UART
    beqz t5, small
    addi t4, t4, 64
    sb t4, 0(t6)
    j back
small:
    addi t4, t4, 96
    sb t4, 0(t6)
    addi a0, s6, 18
    li a1, 1
    call send
back:
    la t0, receive_available
    lhu t1, 2(t0)
    andi t2, t1, RING - 1
    slli t2, t2, 1
    add t2, t2, t0
    sh s5, 4(t2)
    addi t1, t1, 1
    sh t1, 2(t0)
    addi s3, s3, 1
    slli s3, s3, 48
    srli s3, s3, 48
    j more
heard:
    jr s4

send:                               # to the six bytes at a0, of the kind a1
    la t0, frame
    li t1, 0
to:
    add t2, a0, t1
    lbu t3, 0(t2)
    add t2, t0, t1
    sb t3, 12(t2)
    addi t1, t1, 1
    li t3, 6
    bne t1, t3, to
    sb a1, 26(t0)
    la t1, transmit_queue
    sd t0, 0(t1)
    li t2, 12 + 60
    sw t2, 8(t1)
    sw zero, 12(t1)
    la t1, transmit_available
    lhu t2, 2(t1)
    addi t2, t2, 1
    sh t2, 2(t1)
    li t2, 1
    sw t2, 0x50(s0)
    ret

make_queue:                         # queue a0 at a1: descriptors, then the available ring, then the used one
    sw a0, 0x30(s0)
    li t0, RING
    sw t0, 0x38(s0)
    sw a1, 0x80(s0)
    addi t0, a1, 16 * RING
    sw t0, 0x90(s0)
    addi t0, t0, 32
    sw t0, 0xa0(s0)
    sw zero, 0x84(s0)
    sw zero, 0x94(s0)
    sw zero, 0xa4(s0)
    li t0, 1
    sw t0, 0x44(s0)
    ret

.data
.align 4
everybody:
    .dword -1
.align 4
receive_queue:
    .zero 16 * RING
receive_available:
    .zero 32
receive_used:
    .zero 96
.align 4
transmit_queue:
    .zero 16 * RING
transmit_available:
    .zero 32
    .zero 96
.align 4
frame:
    .zero 12 + 60
.align 4
buffers:
    .zero RING * BUFFER
