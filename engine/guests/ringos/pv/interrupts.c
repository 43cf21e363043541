/* Trap entry switched on, and events: bits of the shared page that the hypervisor sets. Taking them needs no call. */
#include "../kernel.h"

/* Every return to user mode finds previous clear, for so a trap from user mode leaves it. */
void traps_init(uint64_t hart)
{
    (void)hart;
    call_now(PV_SET_TRAP_ENTRY, (uint64_t)trap_entry, 0);
}

/* Serve what is pending although upcalls are off. The clock comes last: it may run another process first. */
void interrupts_poll(void)
{
    uint64_t events = __atomic_exchange_n(&shared.pending, 0, __ATOMIC_RELAXED);
    if (events & 1UL << PV_EVENT_CONSOLE)
        console_interrupt();
    if (events & 1UL << PV_EVENT_NET)
        net_arrived();
    if (events & 1UL << PV_EVENT_TIMER)
        clock_interrupt();
}

void interrupts_serve(uint64_t cause)
{
    (void)cause;
    interrupts_poll();
}
