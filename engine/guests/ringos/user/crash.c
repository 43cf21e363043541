/* Do what a program must not do; the kernel ends it and goes on. "pointers" gives the kernel bad
 * addresses instead, and prints what it answers. */
#include "lib.h"

static void show(const char *what, long result)
{
    print("crash: %s: %s\n", what, result < 0 ? error_text(result) : "accepted");
}

static int try_pointers(void)
{
    show("write from 0", write((void *)0, 1));
    show("write from the kernel", write((void *)0x80200000, 1));
    show("write across the stack's end", write((void *)0x401ffff8, 16));
    show("write around the end of memory", write((void *)-8L, 16));
    show("receive list into own text", processes((void *)0x40000000, 1));
    show("receive list into a device", processes((void *)0x10000000, 1));
    show("spawn of a program named by 0", spawn((char *)0, "", 0));
    show("spawn with arguments in the kernel", spawn("echo", (char *)0x80200000, 0));
    show("sbrk beyond all", sbrk(1L << 60));
    show("sbrk below the heap", sbrk(-4096));
    show("kill of init", kill(1));
    register long a0 asm("a0");
    register long a7 asm("a7") = 999;
    asm volatile("ecall" : "=r"(a0) : "r"(a7) : "memory");
    show("system call 999", a0);
    return 0;
}

static uint64_t fill_stack(uint64_t depth)
{
    volatile uint64_t page[512];
    page[0] = depth;
    return depth == 0 ? 0 : fill_stack(depth - 1) + page[0];
}

int main(char *arguments)
{
    const char *kind = next_word(&arguments);
    if (same_text(kind, "") || same_text(kind, "null"))
        return *(volatile int *)0;
    if (same_text(kind, "store"))
        *(volatile int *)0x80200000 = 1;
    else if (same_text(kind, "jump"))
        ((void (*)(void))0x80200000)();
    else if (same_text(kind, "illegal"))
        asm volatile("csrw satp, zero");
    else if (same_text(kind, "breakpoint"))
        asm volatile("ebreak");
    else if (same_text(kind, "stack"))
        return (int)fill_stack(1000);
    else if (same_text(kind, "pointers"))
        return try_pointers();
    print("usage: crash [null|store|jump|illegal|breakpoint|stack|pointers]\n");
    return 2;
}
