/* The firmware (SBI specification 1.0: chapter 6 TIME, chapter 10 SRST), and the test finisher, the
 * one device of the virt board that can end the machine with a status of our choice. */
#include "../kernel.h"

#define SBI_TIME 0x54494d45
#define SBI_SRST 0x53525354
enum { SRST_SHUTDOWN, SRST_COLD_REBOOT };
enum { REASON_NONE, REASON_SYSTEM_FAILURE };

#define FINISHER ((volatile uint32_t *)0x100000)
#define FINISHER_FAIL 0x3333

/* a7 and a6 select the extension and the function; a0 and a1 carry arguments, and come back changed. */
static void sbi_call(uint64_t extension, uint64_t function, uint64_t argument0, uint64_t argument1)
{
    register uint64_t a0 asm("a0") = argument0;
    register uint64_t a1 asm("a1") = argument1;
    register uint64_t a6 asm("a6") = function;
    register uint64_t a7 asm("a7") = extension;
    asm volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
}

/* The timer interrupt becomes pending at this time, in ticks; until then it is not. */
void timer_set(uint64_t time)
{
    sbi_call(SBI_TIME, 0, time, 0);
}

static _Noreturn void reset(uint64_t type, uint64_t reason)
{
    sbi_call(SBI_SRST, 0, type, reason);
    for (;;)
        wait_for_interrupt();
}

_Noreturn void machine_off(int status)
{
    if (status != 0)
        *FINISHER = ((uint32_t)status << 16) | FINISHER_FAIL;
    reset(SRST_SHUTDOWN, status == 0 ? REASON_NONE : REASON_SYSTEM_FAILURE);
}

_Noreturn void machine_reboot(void)
{
    reset(SRST_COLD_REBOOT, REASON_NONE);
}

_Noreturn void machine_failed(void)
{
    reset(SRST_SHUTDOWN, REASON_SYSTEM_FAILURE);
}
