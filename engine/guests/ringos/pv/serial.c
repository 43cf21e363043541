/* The serial line of the console: a page with two rings of bytes, which the hypervisor's back end shares. It is
 * told of output when the kernel calls the hypervisor anyway, or when the ring is full. */
#include "../kernel.h"

static volatile struct pv_console ring __attribute__((aligned(4096)));
_Static_assert(sizeof ring <= PAGE_SIZE, "the ring is one page");

extern struct pv_call batch[];
extern uint64_t batch_count;

void serial_init(void)
{
    call_now(PV_CONNECT, PV_DEVICE_CONSOLE, (uint64_t)&ring);
}

void serial_put(char c)
{
    if (ring.out_produced - ring.out_consumed == sizeof ring.out)
        calls_flush();
    ring.out[ring.out_produced % sizeof ring.out] = c;
    ring.out_produced++;
    const struct pv_call *last = &batch[batch_count - 1];
    if (batch_count == 0 || last->number != PV_NOTIFY || last->argument0 != PV_DEVICE_CONSOLE)
        call_later(PV_NOTIFY, PV_DEVICE_CONSOLE, 0);
}

/* False: no character has come that was not taken yet. */
bool serial_take(char *c)
{
    if (ring.in_produced == ring.in_consumed)
        return false;
    *c = ring.in[ring.in_consumed % sizeof ring.in];
    ring.in_consumed++;
    return true;
}
