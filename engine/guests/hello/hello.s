# hello: the smallest guest that does something and ends.
#
# The firmware (SBI) starts it in supervisor mode at 0x80200000 with
#     a0 = number of this hart,   a1 = address of the device tree.
# It talks to the outside world in the two ways that every kernel does:
#
#     device registers   lbu/sb on the 16550 UART: memory-mapped I/O
#     firmware calls     ecall: the SBI's system reset ends the machine
#
# Under trap-and-emulate each of these accesses leaves the guest: count them in the trap feed.

        .equ    UART,           0x10000000      # the 16550's registers, one byte each:
        .equ    THR,            0               #   transmit holding register: a byte to send
        .equ    LSR,            5               #   line status register
        .equ    LSR_THR_EMPTY,  0x20            #     bit 5: THR can take the next byte

        .equ    SBI_SRST,       0x53525354      # "SRST": the system reset extension
        .equ    SRST_SHUTDOWN,  0               #   a0: what to do
        .equ    SRST_NO_REASON, 0               #   a1: why

        .section .text
        .globl  _start
_start:
        la      s0, greeting
        jal     print

        li      a7, SBI_SRST
        li      a6, 0                           # its only function: sbi_system_reset
        li      a0, SRST_SHUTDOWN
        li      a1, SRST_NO_REASON
        ecall

halt:                                           # only a firmware without SRST comes back
        wfi
        j       halt


# print: send the bytes at s0 up to the first zero byte.  Changes s0, t0, t1, t2.
print:
        li      t0, UART
1:      lbu     t1, 0(s0)
        beqz    t1, 3f
2:      lbu     t2, LSR(t0)                     # wait until the UART can take a byte
        andi    t2, t2, LSR_THR_EMPTY
        beqz    t2, 2b
        sb      t1, THR(t0)
        addi    s0, s0, 1
        j       1b
3:      ret


        .section .rodata
greeting:
        .asciz  "Hello from supervisor mode!\r\n"
