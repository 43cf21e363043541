/* Trap entry switched on, and interrupts: the timer's, and those that come through the platform-level
 * interrupt controller. It tells which device interrupts (RISC-V PLIC specification 1.0).
 *
 * A source with a priority above the context's threshold, and enabled for the context, interrupts it.
 * The kernel claims it, serves the device, and completes the claim. Each hart has two contexts: 2n for
 * machine mode, 2n + 1 for supervisor mode, which is ours. */
#include "../kernel.h"

#define PLIC 0x0c000000UL
#define REGISTER(offset) (*(volatile uint32_t *)(PLIC + (offset)))
#define PRIORITY(source) REGISTER(4 * (source))
#define ENABLE(context) REGISTER(0x2000 + 0x80 * (context))
#define THRESHOLD(context) REGISTER(0x200000 + 0x1000 * (context))
#define CLAIM(context) REGISTER(0x200004 + 0x1000 * (context))

#define UART_SOURCE 10

static uint64_t context;
static uint32_t enabled;

/* Every return to user mode finds SPP clear and SPIE set, for so trap entry leaves them. */
void traps_init(uint64_t hart)
{
    csr_write(stvec, trap_entry);
    csr_clear(sstatus, SSTATUS_SPP | SSTATUS_SUM);
    csr_set(sstatus, SSTATUS_SPIE);
    csr_write(sie, 1UL << INTERRUPT_TIMER | 1UL << INTERRUPT_EXTERNAL);
    context = 2 * hart + 1;
    interrupts_from(UART_SOURCE);
    THRESHOLD(context) = 0;
}

/* Let a source interrupt from now on. */
void interrupts_from(uint32_t source)
{
    PRIORITY(source) = 1;
    ENABLE(context) = enabled |= 1u << source;
}

static void plic_interrupt(void)
{
    uint32_t source = CLAIM(context);
    if (source == UART_SOURCE)
        console_interrupt();
    else if (source != 0 && source == net_source)
        net_interrupt();
    else if (source != 0 && source == balloon_source)
        balloon_interrupt();
    if (source != 0)
        CLAIM(context) = source;
}

void interrupts_serve(uint64_t cause)
{
    uint64_t number = cause & ~CAUSE_INTERRUPT;
    if (number == INTERRUPT_TIMER)
        clock_interrupt();
    else if (number == INTERRUPT_EXTERNAL)
        plic_interrupt();
    else
        panic("an interrupt that was never enabled");
}

/* Serve what is pending although interrupts are off. */
void interrupts_poll(void)
{
    uint64_t pending = csr_read(sip);
    if (pending & 1UL << INTERRUPT_TIMER)
        clock_interrupt();
    if (pending & 1UL << INTERRUPT_EXTERNAL)
        plic_interrupt();
}
