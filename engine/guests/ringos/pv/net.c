/* The network card: the front end of a split driver, with a ring for what is sent and one for what arrives. The
 * hypervisor's back end has halves of granted pages beforehand for the latter; a page that a frame is sent from is granted
 * to it for as long as it takes. */
#include "../kernel.h"

#define SENDING 1   /* its grant */
#define RECEIVING 2 /* the first of those that stay */
#define BUFFERS 8
#define BUFFER (PAGE_SIZE / 2)

static volatile struct pv_ring *sending, *receiving; /* a page each */
static uint8_t *buffers[BUFFERS];
static uint64_t taken; /* of what has arrived */

static volatile struct pv_request *slot(volatile struct pv_ring *ring, uint64_t number)
{
    return &ring->slots[number % (sizeof ring->slots / sizeof *ring->slots)];
}

/* The back end may put a frame there. */
static void offer(uint64_t number)
{
    volatile struct pv_request *request = slot(receiving, receiving->produced);
    request->buffer = (RECEIVING + number / 2) * PAGE_SIZE + number % 2 * BUFFER;
    request->bytes = BUFFER;
    receiving->produced++;
}

bool net_begin(uint8_t *address)
{
    uint8_t *page = NULL;
    sending = page_alloc();
    receiving = page_alloc();
    if (sending == NULL || receiving == NULL)
        return false;
    for (uint64_t i = 0; i < BUFFERS; i++) {
        page = i % 2 == 0 ? page_alloc() : page;
        if (page == NULL)
            return false;
        buffers[i] = page + i % 2 * BUFFER;
        shared.grants[RECEIVING + i / 2] = (uint64_t)page | PV_GRANT_WRITABLE;
    }
    long here = call_for(PV_CONNECT, PV_DEVICE_NET_SEND, (uint64_t)sending);
    if (here < 0 || call_for(PV_CONNECT, PV_DEVICE_NET_RECEIVE, (uint64_t)receiving) < 0)
        return false;
    for (uint64_t i = 0; i < BUFFERS; i++)
        offer(i);
    for (int i = 0; i < 6; i++)
        address[i] = (uint8_t)(here >> (40 - 8 * i));
    return true;
}

void net_send(const void *frame, uint64_t bytes)
{
    uint64_t address = (uint64_t)frame;
    shared.grants[SENDING] = ROUND_DOWN(address, PAGE_SIZE) | PV_GRANT_READABLE;
    volatile struct pv_request *request = slot(sending, sending->produced);
    request->buffer = SENDING * PAGE_SIZE + address % PAGE_SIZE;
    request->bytes = bytes;
    sending->produced++;
    call_now(PV_NOTIFY, PV_DEVICE_NET_SEND, 0);
    shared.grants[SENDING] = 0;
    /* That it was sent is known: the event is for what has arrived. */
    if (receiving->answered == taken)
        __atomic_fetch_and(&shared.pending, ~(1UL << PV_EVENT_NET), __ATOMIC_RELAXED);
}

void *net_take(uint64_t *bytes)
{
    if (receiving->answered == taken)
        return NULL;
    volatile struct pv_request *request = slot(receiving, taken);
    *bytes = request->bytes;
    return buffers[taken % BUFFERS];
}

void net_give_back(void)
{
    offer(taken++ % BUFFERS);
}
