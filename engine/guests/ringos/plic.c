/* The platform-level interrupt controller: tells which device interrupts (RISC-V PLIC specification 1.0).
 *
 * A source with a priority above the context's threshold, and enabled for the context, interrupts it.
 * The kernel claims it, serves the device, and completes the claim. Each hart has two contexts: 2n for
 * machine mode, 2n + 1 for supervisor mode, which is ours. */
#include "kernel.h"

#define PLIC 0x0c000000UL
#define REGISTER(offset) (*(volatile uint32_t *)(PLIC + (offset)))
#define PRIORITY(source) REGISTER(4 * (source))
#define ENABLE(context) REGISTER(0x2000 + 0x80 * (context))
#define THRESHOLD(context) REGISTER(0x200000 + 0x1000 * (context))
#define CLAIM(context) REGISTER(0x200004 + 0x1000 * (context))

#define UART_SOURCE 10

static uint64_t context;

void plic_init(uint64_t hart)
{
    context = 2 * hart + 1;
    PRIORITY(UART_SOURCE) = 1;
    ENABLE(context) = 1u << UART_SOURCE;
    THRESHOLD(context) = 0;
}

void plic_interrupt(void)
{
    uint32_t source = CLAIM(context);
    if (source == UART_SOURCE)
        console_interrupt();
    if (source != 0)
        CLAIM(context) = source;
}
