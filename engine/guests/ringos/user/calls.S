# Where a program begins, and its system calls: one stub per row of common/abi.h.
#include "../common/abi.h"

        .section .text.start, "ax"
        .globl  _start
_start:                                 # a0 = the program's arguments, sp = the top of its stack
        call    main
        call    exit

        .section .text
#define ROW(number, name) .globl name; name: li a7, number; ecall; ret;
SYSTEM_CALLS(ROW)
