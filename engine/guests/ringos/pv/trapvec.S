# Into the kernel and out of it.
#
# While a process runs in user mode, the shared page's `stack` points to its frame, which is the top of its
# kernel stack:
#
#       kernel_stack + 4096     t6  (x31)       \
#                               ...              >  struct frame
#       stack -------------->   pc              /
#                               the kernel's C functions, growing down
#       kernel_stack
#
# Register xn has its place 8 * n bytes into the frame. The hypervisor enters with sp = stack; pc and sp of the
# trapped code are in the shared page.
#
# The kernel itself never traps on purpose. If it does, the frame below overwrites the process's and
# trap() panics: it needs nothing but the shared page for that.
#include "hypercalls.h"

        .section .text
        .balign 4
        .globl  trap_entry
trap_entry:                             # sp = frame
        .irp    n, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        sd      x\n, 8 * \n(sp)
        .endr
        la      t1, shared
        ld      t0, PV_SHARED_SP(t1)
        sd      t0, 16(sp)
        ld      t0, PV_SHARED_PC(t1)
        sd      t0, 0(sp)
        mv      a0, sp
        call    trap

        .globl  trap_return
trap_return:                            # sp = frame; a new process begins here
        la      a7, shared              # what the call itself needs comes back from here
        ld      t0, 0(sp)
        sd      t0, PV_SHARED_PC(a7)
        ld      t0, 8 * 2(sp)
        sd      t0, PV_SHARED_SP(a7)
        ld      t0, 8 * 10(sp)
        sd      t0, PV_SHARED_A0(a7)
        ld      t0, 8 * 11(sp)
        sd      t0, PV_SHARED_A1(a7)
        ld      t0, 8 * 16(sp)
        sd      t0, PV_SHARED_A6(a7)
        ld      t0, 8 * 17(sp)
        sd      t0, PV_SHARED_A7(a7)
        sd      zero, PV_SHARED_PRIVILEGE(a7)
        .irp    n, 1, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        ld      x\n, 8 * \n(sp)
        .endr
        la      a0, batch
        la      a7, batch_count
        ld      a1, 0(a7)
        sd      zero, 0(a7)
        li      a6, PV_RETURN
        li      a7, PV_EXTENSION
        ecall                           # comes back only if a call of the batch was refused
        la      a0, refused
        j       panic

        .section .rodata
refused:
        .asciz  "the hypervisor refused a call on the way to user mode"
