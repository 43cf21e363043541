/* The hypervisor in place of firmware: is it there, the timer, and the end of the machine. */
#include "../kernel.h"

#define SBI_CONSOLE_PUTCHAR 0x1
#define SBI_BASE 0x10
#define SBI_PROBE 3
#define SBI_SRST 0x53525354
#define SRST_SHUTDOWN 0
#define REASON_SYSTEM_FAILURE 1
enum { SHUTDOWN_OFF, SHUTDOWN_REBOOT };

/* What tells a hypervisor, before it starts this image, that it is made for one. */
__attribute__((used, aligned(4), section(".note.ringside"))) static const struct {
    uint32_t name_bytes, value_bytes, type;
    char name[12];
    uint32_t version;
} note = {9, 4, PV_NOTE_TYPE, "Ringside", PV_VERSION};

static uint64_t firmware(uint64_t extension, uint64_t function, uint64_t argument0, uint64_t argument1)
{
    register uint64_t a0 asm("a0") = argument0;
    register uint64_t a1 asm("a1") = argument1;
    register uint64_t a6 asm("a6") = function;
    register uint64_t a7 asm("a7") = extension;
    asm volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
    return a1;
}

/* Whatever is below a kernel answers this, and without a hypervisor it can print and end the machine. */
void machine_begin(void)
{
    static const char complaint[] = "ringos: this kernel is made for a hypervisor, and there is none below it\r\n";
    if (firmware(SBI_BASE, SBI_PROBE, PV_EXTENSION, 0) != 0) {
        shared.upcalls_off = 1;
        call_now(PV_SHARE, (uint64_t)&shared, 0);
        return;
    }
    for (const char *c = complaint; *c != '\0'; c++)
        firmware(SBI_CONSOLE_PUTCHAR, 0, (uint8_t)*c, 0);
    firmware(SBI_SRST, 0, SRST_SHUTDOWN, REASON_SYSTEM_FAILURE);
    for (;;)
        continue;
}

/* The timer event becomes pending at this time, in ticks; until then it is not. */
void timer_set(uint64_t time)
{
    call_later(PV_SET_TIMER, time, 0);
}

static _Noreturn void shutdown(uint64_t kind, int status)
{
    call_now(PV_SHUTDOWN, kind, (uint64_t)status);
    for (;;)
        continue;
}

_Noreturn void machine_off(int status)
{
    shutdown(SHUTDOWN_OFF, status);
}

_Noreturn void machine_reboot(void)
{
    shutdown(SHUTDOWN_REBOOT, 0);
}

_Noreturn void machine_failed(void)
{
    shutdown(SHUTDOWN_OFF, 1);
}
