/* The network card: a virtio network device (Virtual I/O Device 1.2, section 5.1). Frames arrive in halves of pages that
 * it has beforehand; one is sent at a time, from where it is. */
#include "virtio.h"

enum { RECEIVING, SENDING }; /* its queues */
#define FEATURE_MAC (1u << 5)
#define HEADER 12 /* before each frame: of offloads, which nobody asked for */
#define BUFFER (PAGE_SIZE / 2)

static struct queue *receiving, *sending; /* a page for both */
static uint8_t *buffers[QUEUE_SIZE];
static uint16_t taken; /* of what has arrived */
static volatile uint32_t *device;
static const uint8_t no_offload[HEADER];
uint32_t net_source;

bool net_begin(uint8_t *address)
{
    uint8_t *page = NULL;
    receiving = page_alloc();
    if (receiving == NULL || (device = virtio_find(VIRTIO_NET, FEATURE_MAC)) == NULL)
        return false;
    sending = receiving + 1;
    sending->driver.flags = NO_INTERRUPT;
    for (uint16_t i = 0; i < QUEUE_SIZE; i++) {
        page = i % 2 == 0 ? page_alloc() : page;
        if (page == NULL)
            return false;
        buffers[i] = page + i % 2 * BUFFER;
        receiving->descriptors[i].address = (uint64_t)buffers[i];
        receiving->descriptors[i].bytes = BUFFER;
        receiving->descriptors[i].flags = WRITE;
        receiving->driver.ring[i] = i;
    }
    receiving->driver.index = QUEUE_SIZE;
    virtio_queue(device, RECEIVING, receiving);
    virtio_queue(device, SENDING, sending);
    for (int i = 0; i < 6; i++)
        address[i] = ((volatile uint8_t *)&device[CONFIG])[i];
    virtio_start(device);
    device[QUEUE_NOTIFY] = RECEIVING;
    net_source = virtio_source(device);
    interrupts_from(net_source);
    return true;
}

void net_send(const void *frame, uint64_t bytes)
{
    sending->descriptors[0].address = (uint64_t)no_offload;
    sending->descriptors[0].bytes = HEADER;
    sending->descriptors[0].flags = NEXT;
    sending->descriptors[0].next = 1;
    sending->descriptors[1].address = (uint64_t)frame;
    sending->descriptors[1].bytes = (uint32_t)bytes;
    virtio_do(device, SENDING, sending);
}

void net_interrupt(void)
{
    device[INTERRUPT_ACK] = INTERRUPT_USED;
    net_arrived();
}

void *net_take(uint64_t *bytes)
{
    const volatile uint16_t *arrived = &receiving->device.index;
    if (*arrived == taken)
        return NULL;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    unsigned at = taken % QUEUE_SIZE;
    *bytes = receiving->device.ring[at].bytes - HEADER;
    return buffers[receiving->device.ring[at].head % QUEUE_SIZE] + HEADER;
}

void net_give_back(void)
{
    uint16_t head = (uint16_t)receiving->device.ring[taken++ % QUEUE_SIZE].head;
    virtio_offer(device, RECEIVING, receiving, head % QUEUE_SIZE);
}
