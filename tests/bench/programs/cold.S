# Code that is executed once: COUNT different groups of five instructions, one after the other.
    .globl main
main:
    li a0, 0
    li a1, 1
    la a2, word
    .set number, 0
    .rept COUNT
    lui a3, number & 0xfffff
    xor a0, a0, a3
    addi a1, a1, number & 1023
    ld a4, 0(a2)
    add a0, a0, a4
    .set number, number + 1
    .endr
    li a2, 0x10000000           # the sum's low digit says enough
    andi a0, a0, 15
    addi a0, a0, 0x40
    sb a0, 0(a2)
    li a0, 10
    sb a0, 0(a2)
    ret
    .data
    .balign 8
word: .dword 3
