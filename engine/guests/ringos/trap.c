/* Why the hart entered the kernel, and what is done about it.
 *
 *      cause                       what follows
 *      ------------------------    ------------------------------------------
 *      ecall from user mode        syscall()
 *      an interrupt                interrupts_serve()
 *      page fault                  vm_fault(); if that cannot help, as below
 *      anything else, from user    the process is ended, the others go on
 *      anything, from the kernel   panic: the machine ends
 *
 * The kernel takes interrupts only while user code runs, and in the idle loop, which asks for them. */
#include "kernel.h"

static const char *const cause_names[] = {
    "instruction address misaligned", "instruction access fault", "illegal instruction", "breakpoint",
    "load address misaligned", "load access fault", "store address misaligned", "store access fault",
    "ecall from user mode", "ecall from supervisor mode", "reserved cause 10", "reserved cause 11",
    "instruction page fault", "load page fault", "reserved cause 14", "store page fault",
};

static const char *cause_name(uint64_t cause)
{
    return cause < sizeof cause_names / sizeof *cause_names ? cause_names[cause] : "unknown cause";
}

_Noreturn void panic(const char *why)
{
    print("\nringos: panic: %s\n", why);
    print("ringos: scause %x, sepc %x, stval %x\n", trap_cause(), trap_pc(), trap_value());
    machine_failed();
}

static void exception(const struct frame *frame, uint64_t cause)
{
    if (trap_from_kernel())
        panic(cause_name(cause));
    uint64_t address = trap_value();
    uint64_t access = cause == CAUSE_INSTRUCTION_PAGE_FAULT ? PTE_X
                    : cause == CAUSE_LOAD_PAGE_FAULT        ? PTE_R
                    : cause == CAUSE_STORE_PAGE_FAULT       ? PTE_W
                                                            : 0;
    long error = access != 0 ? vm_fault(&current->space, address, access) : E(FAULT);
    if (error == 0)
        return;
    print("%s (pid %d) killed: %s%s at pc %x, address %x\n", current->name, (long)current->pid,
          error == E(NO_MEMORY) ? "out of memory, " : "", cause_name(cause), frame->pc, address);
    process_exit(STATUS_FAULT + (int)cause);
}

void trap(struct frame *frame)
{
    uint64_t cause = trap_cause();
    if (cause == CAUSE_USER_ECALL) {
        frame->pc += 4;
        frame->a0 = (uint64_t)syscall(frame);
    } else if (cause & CAUSE_INTERRUPT) {
        interrupts_serve(cause);
    } else {
        exception(frame, cause);
    }
    if (current->killed)
        process_exit(STATUS_KILLED);
    clock_arm();
}
