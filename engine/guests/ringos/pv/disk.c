/* The disk: the front end of a split driver. Requests stand in a ring that the hypervisor's back end shares, and the page
 * that one is about is granted to it for as long as it takes. Found when it is first asked for. */
#include "../kernel.h"

#define GRANT 0

static volatile struct pv_ring *ring; /* a page */

uint64_t disk_begin(void)
{
    if (ring == NULL)
        ring = page_alloc();
    if (ring == NULL)
        return 0;
    shared.masked |= 1UL << PV_EVENT_BLOCK; /* the answer is there when the call comes back */
    long sectors = call_for(PV_CONNECT, PV_DEVICE_BLOCK, (uint64_t)ring);
    return sectors < 0 ? 0 : (uint64_t)sectors;
}

bool disk_transfer(uint64_t sector, void *page, bool write)
{
    shared.grants[GRANT] = (uint64_t)page | (write ? PV_GRANT_READABLE : PV_GRANT_WRITABLE);
    volatile struct pv_request *request = &ring->slots[ring->produced % (sizeof ring->slots / sizeof *ring->slots)];
    request->operation = write ? PV_BLOCK_WRITE : PV_BLOCK_READ;
    request->place = sector;
    request->buffer = GRANT * PAGE_SIZE;
    request->bytes = PAGE_SIZE;
    ring->produced++;
    long error = call_now(PV_NOTIFY, PV_DEVICE_BLOCK, 0);
    shared.grants[GRANT] = 0;
    return error == 0 && request->operation == 0;
}
