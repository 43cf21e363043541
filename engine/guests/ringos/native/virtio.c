/* Devices behind virtio-mmio, as their drivers use them (virtio.h). */
#include "virtio.h"

#define SLOTS 8
#define SLOT(number) ((volatile uint32_t *)(0x10001000UL + 0x1000UL * (number)))
#define FIRST_SOURCE 1 /* of the PLIC: the first slot's */
enum { MAGIC = 0x0 / 4, VERSION = 0x4 / 4, DEVICE = 0x8 / 4, FEATURES = 0x20 / 4, FEATURES_HALF = 0x24 / 4,
       QUEUE = 0x30 / 4, QUEUE_BUFFERS = 0x38 / 4, QUEUE_READY = 0x44 / 4, STATUS = 0x70 / 4, DESCRIPTORS = 0x80 / 4,
       DRIVER = 0x90 / 4, DEVICE_RING = 0xa0 / 4 };
#define VIRTIO 0x74726976
#define MODERN 2
#define VERSION_1_HIGH 1 /* bit 32 of the features */
enum { ACKNOWLEDGE = 1, DRIVER_HERE = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

/* The first device of its kind, with these features agreed on, ready for its queues; NULL: there is none. */
volatile uint32_t *virtio_find(uint32_t kind, uint32_t features)
{
    volatile uint32_t *device = NULL;
    for (int i = 0; i < SLOTS && device == NULL; i++)
        if (SLOT(i)[MAGIC] == VIRTIO && SLOT(i)[VERSION] == MODERN && SLOT(i)[DEVICE] == kind)
            device = SLOT(i);
    if (device == NULL)
        return NULL;
    device[STATUS] = 0;
    device[STATUS] = ACKNOWLEDGE | DRIVER_HERE;
    device[FEATURES_HALF] = 0;
    device[FEATURES] = features;
    device[FEATURES_HALF] = 1;
    device[FEATURES] = VERSION_1_HIGH;
    device[STATUS] = ACKNOWLEDGE | DRIVER_HERE | FEATURES_OK;
    return device;
}

static void put(volatile uint32_t *device, int where, const void *address)
{
    device[where] = (uint32_t)(uint64_t)address;
    device[where + 1] = (uint32_t)((uint64_t)address >> 32);
}

void virtio_queue(volatile uint32_t *device, uint32_t number, const struct queue *queue)
{
    device[QUEUE] = number;
    device[QUEUE_BUFFERS] = QUEUE_SIZE;
    put(device, DESCRIPTORS, queue->descriptors);
    put(device, DRIVER, &queue->driver);
    put(device, DEVICE_RING, &queue->device);
    device[QUEUE_READY] = 1;
}

void virtio_start(volatile uint32_t *device)
{
    device[STATUS] = ACKNOWLEDGE | DRIVER_HERE | FEATURES_OK | DRIVER_OK;
}

/* What it interrupts as. */
uint32_t virtio_source(volatile uint32_t *device)
{
    return FIRST_SOURCE + (uint32_t)((device - SLOT(0)) / (SLOT(1) - SLOT(0)));
}

/* The buffer whose first descriptor is head is the device's from now on. */
void virtio_offer(volatile uint32_t *device, uint32_t number, struct queue *queue, uint16_t head)
{
    const volatile uint16_t *flags = &queue->device.flags;
    queue->driver.ring[queue->driver.index % QUEUE_SIZE] = head;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    queue->driver.index++;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!(*flags & NO_NOTIFY))
        device[QUEUE_NOTIFY] = number;
}

/* Offer the buffer of descriptor 0 and wait until the device is done with it. */
void virtio_do(volatile uint32_t *device, uint32_t number, struct queue *queue)
{
    const volatile uint16_t *done = &queue->device.index;
    uint16_t before = *done;
    virtio_offer(device, number, queue, 0);
    while (*done == before)
        continue;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
