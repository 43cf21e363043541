/* The disk: a virtio block device (Virtual I/O Device 1.2, section 5.2). Found when it is first asked for. One request
 * at a time, of three descriptors: what to do, the page, and how it went. */
#include "virtio.h"

enum { IN, OUT };

static struct queue *queue; /* a page */
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static volatile uint8_t status;
static volatile uint32_t *device;

uint64_t disk_begin(void)
{
    if (queue == NULL)
        queue = page_alloc();
    if (queue == NULL || (device = virtio_find(VIRTIO_BLOCK, 0)) == NULL)
        return 0;
    queue->driver.flags = NO_INTERRUPT;
    virtio_queue(device, 0, queue);
    virtio_start(device);
    return device[CONFIG] | (uint64_t)device[CONFIG + 1] << 32;
}

bool disk_transfer(uint64_t sector, void *page, bool write)
{
    header.type = write ? OUT : IN;
    header.sector = sector;
    queue->descriptors[0].address = (uint64_t)&header;
    queue->descriptors[0].bytes = sizeof header;
    queue->descriptors[0].flags = NEXT;
    queue->descriptors[0].next = 1;
    queue->descriptors[1].address = (uint64_t)page;
    queue->descriptors[1].bytes = PAGE_SIZE;
    queue->descriptors[1].flags = write ? NEXT : NEXT | WRITE;
    queue->descriptors[1].next = 2;
    queue->descriptors[2].address = (uint64_t)&status;
    queue->descriptors[2].bytes = 1;
    queue->descriptors[2].flags = WRITE;
    virtio_do(device, 0, queue);
    return status == 0;
}
