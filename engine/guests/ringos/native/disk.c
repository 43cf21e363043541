/* The disk: a virtio block device behind virtio-mmio (Virtual I/O Device 1.2, sections 2.7, 4.2 and 5.2). Found when
 * it is first asked for. One request at a time, of three descriptors: what to do, the page, and how it went. */
#include "../kernel.h"

#define SLOTS 8
#define SLOT(number) ((volatile uint32_t *)(0x10001000UL + 0x1000UL * (number)))
enum { MAGIC = 0x0 / 4, VERSION = 0x4 / 4, DEVICE = 0x8 / 4, FEATURES = 0x20 / 4, FEATURES_HALF = 0x24 / 4,
       QUEUE_SIZE = 0x38 / 4, QUEUE_READY = 0x44 / 4, NOTIFY = 0x50 / 4, STATUS = 0x70 / 4, DESCRIPTORS = 0x80 / 4,
       DRIVER = 0x90 / 4, DEVICE_RING = 0xa0 / 4, CAPACITY = 0x100 / 4 };
#define VIRTIO 0x74726976
#define MODERN 2
#define BLOCK 2
#define VERSION_1_HIGH 1 /* bit 32 of the features */
enum { ACKNOWLEDGE = 1, DRIVER_HERE = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { NEXT = 1, WRITE = 2 };
enum { IN, OUT };
#define SIZE 4
#define NO_INTERRUPT 1

static struct {
    struct {
        uint64_t address;
        uint32_t bytes;
        uint16_t flags, next;
    } descriptors[SIZE];
    struct {
        uint16_t flags, index, ring[SIZE];
    } driver;
    uint32_t padding;
    struct {
        uint16_t flags, index;
        uint32_t ring[2 * SIZE];
    } device;
} *queue; /* a page */
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static volatile uint8_t status;
static volatile uint32_t *device;

static void put(int where, const void *address)
{
    device[where] = (uint32_t)(uint64_t)address;
    device[where + 1] = (uint32_t)((uint64_t)address >> 32);
}

uint64_t disk_begin(void)
{
    for (int i = 0; i < SLOTS && device == NULL; i++)
        if (SLOT(i)[MAGIC] == VIRTIO && SLOT(i)[VERSION] == MODERN && SLOT(i)[DEVICE] == BLOCK)
            device = SLOT(i);
    if (queue == NULL)
        queue = page_alloc();
    if (device == NULL || queue == NULL)
        return 0;
    device[STATUS] = 0;
    device[STATUS] = ACKNOWLEDGE | DRIVER_HERE;
    device[FEATURES_HALF] = 1;
    device[FEATURES] = VERSION_1_HIGH;
    device[STATUS] = ACKNOWLEDGE | DRIVER_HERE | FEATURES_OK;
    device[QUEUE_SIZE] = SIZE;
    put(DESCRIPTORS, queue->descriptors);
    put(DRIVER, &queue->driver);
    put(DEVICE_RING, &queue->device);
    queue->driver.flags = NO_INTERRUPT;
    device[QUEUE_READY] = 1;
    device[STATUS] = ACKNOWLEDGE | DRIVER_HERE | FEATURES_OK | DRIVER_OK;
    return device[CAPACITY] | (uint64_t)device[CAPACITY + 1] << 32;
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
    volatile uint16_t *done = &queue->device.index;
    uint16_t before = *done;
    queue->driver.ring[queue->driver.index % SIZE] = 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    queue->driver.index++;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    device[NOTIFY] = 0;
    while (*done == before)
        continue;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return status == 0;
}
