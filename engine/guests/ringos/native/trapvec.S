# Into the kernel and out of it.
#
# While a process runs in user mode, sscratch points to its frame, which is the top of its kernel stack:
#
#       kernel_stack + 4096     t6  (x31)       \
#                               ...              >  struct frame
#       sscratch ------------>  pc              /
#                               the kernel's C functions, growing down
#       kernel_stack
#
# Register xn has its place 8 * n bytes into the frame.
#
# The kernel itself never traps on purpose. If it does, the frame below overwrites the process's and
# trap() panics: it needs nothing but the CSRs for that.

        .section .text
        .balign 4                       # stvec keeps its mode in the two lowest bits
        .globl  trap_entry
trap_entry:
        csrrw   sp, sscratch, sp        # sp = frame, sscratch = the user's sp
        .irp    n, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        sd      x\n, 8 * \n(sp)
        .endr
        csrrw   t0, sscratch, sp        # t0 = the user's sp, sscratch = frame again
        sd      t0, 16(sp)
        csrr    t0, sepc
        sd      t0, 0(sp)
        mv      a0, sp
        call    trap

        .globl  trap_return
trap_return:                            # sp = frame; a new process begins here
        ld      t0, 0(sp)
        csrw    sepc, t0
        .irp    n, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        ld      x\n, 8 * \n(sp)
        .endr
        ld      sp, 16(sp)
        sret
