# The programs, as page-aligned files inside the kernel's read-only data, and the table of their names:
# 16 bytes of name, 8 of address. Their text runs where it lies, so a page's physical address tells a
# debugger which program it belongs to.

        .macro  program name
        .section .rodata.programs, "a"
8:      .asciz  "\name"
        .zero   16 - (. - 8b)           # NAME_MAX
        .dword  9f
        .section .programs, "a"
        .balign 4096
9:      .incbin "\name"
        .endm

        .section .rodata.programs, "a"
        .balign 8
        .globl  programs
programs:
        program init
        program sh
        program cat
        program crash
        program demo
        program echo
        program fill
        program kill
        program ping
        program poweroff
        program primes
        program ps
        program reboot
        program spin
        program work

        .section .rodata.programs, "a"
        .globl  programs_end
programs_end:

        .section .programs, "a"
        .balign 4096                    # nothing else may share a program's last page
