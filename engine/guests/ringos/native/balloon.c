/* The balloon: a virtio memory balloon behind virtio-mmio (Virtual I/O Device 1.2, sections 4.2 and 5.5). The host says how
 * many pages it should hold; what is free goes in, and the host need not have memory for it. The kernel takes pages back
 * when the host wants fewer, or when it has no others. One buffer at a time, of at most a page's worth of page numbers.
 *
 * The numbers of the pages inside are kept in lists, each a page of its own that is not in the balloon. */
#include "../kernel.h"

#define SLOTS 8
#define SLOT(number) ((volatile uint32_t *)(0x10001000UL + 0x1000UL * (number)))
enum { MAGIC = 0x0 / 4, VERSION = 0x4 / 4, DEVICE = 0x8 / 4, FEATURES = 0x20 / 4, FEATURES_HALF = 0x24 / 4,
       QUEUE_SELECT = 0x30 / 4, QUEUE_SIZE = 0x38 / 4, QUEUE_READY = 0x44 / 4, NOTIFY = 0x50 / 4, PENDING = 0x60 / 4,
       ACKNOWLEDGE_INTERRUPT = 0x64 / 4, STATUS = 0x70 / 4, DESCRIPTORS = 0x80 / 4, DRIVER = 0x90 / 4,
       DEVICE_RING = 0xa0 / 4, WANTED = 0x100 / 4, ACTUAL = 0x104 / 4 };
#define VIRTIO 0x74726976
#define MODERN 2
#define BALLOON 5
#define DEFLATE_ON_OOM 4
#define VERSION_1_HIGH 1 /* bit 32 of the features */
enum { ACKNOWLEDGE = 1, DRIVER_HERE = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { INFLATE, DEFLATE, QUEUES };
#define SIZE 2
#define NO_INTERRUPT 1
#define NUMBERS (PAGE_SIZE / 4 - 4)

static struct queue {
    struct {
        uint64_t address;
        uint32_t bytes;
        uint16_t flags, next;
    } descriptors[SIZE];
    struct {
        uint16_t flags, index, ring[SIZE];
    } driver;
    struct {
        uint16_t flags, index;
        uint32_t ring[2 * SIZE];
    } device;
} *queues; /* a page */
static struct list {
    struct list *next;
    uint64_t count;
    uint32_t numbers[NUMBERS];
} *lists;
static uint64_t inside;
static volatile uint32_t *device;

static void put(int where, const void *address)
{
    device[where] = (uint32_t)(uint64_t)address;
    device[where + 1] = (uint32_t)((uint64_t)address >> 32);
}

static void tell(int which, const uint32_t *numbers, uint64_t count)
{
    struct queue *queue = &queues[which];
    queue->descriptors[0].address = (uint64_t)numbers;
    queue->descriptors[0].bytes = (uint32_t)(count * sizeof *numbers);
    volatile uint16_t *done = &queue->device.index;
    uint16_t before = *done;
    queue->driver.ring[queue->driver.index % SIZE] = 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    queue->driver.index++;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    device[NOTIFY] = (uint32_t)which;
    while (*done == before)
        continue;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    inside += which == INFLATE ? count : -count;
    device[ACTUAL] = (uint32_t)inside;
}

/* Put pages in until it holds so many or nothing is free. */
static void inflate(uint64_t wanted)
{
    while (inside < wanted) {
        if (lists == NULL || lists->count == NUMBERS) {
            struct list *fresh = page_take();
            if (fresh == NULL)
                return;
            fresh->next = lists;
            fresh->count = 0;
            lists = fresh;
        }
        uint64_t first = lists->count;
        while (lists->count < NUMBERS && inside + lists->count - first < wanted) {
            void *page = page_take();
            if (page == NULL)
                break;
            lists->numbers[lists->count++] = (uint32_t)((uint64_t)page / PAGE_SIZE);
        }
        if (lists->count == first)
            return;
        tell(INFLATE, &lists->numbers[first], lists->count - first);
    }
}

/* Take pages out until it holds no more than that. */
static void deflate(uint64_t wanted)
{
    while (inside > wanted && lists != NULL) {
        uint64_t count = lists->count < inside - wanted ? lists->count : inside - wanted;
        lists->count -= count;
        tell(DEFLATE, &lists->numbers[lists->count], count);
        for (uint64_t i = 0; i < count; i++)
            page_free((void *)((uint64_t)lists->numbers[lists->count + i] * PAGE_SIZE));
        if (lists->count == 0) {
            struct list *empty = lists;
            lists = empty->next;
            page_free(empty);
        }
    }
}

/* The interrupt's source; 0: there is no balloon. */
uint32_t balloon_begin(void)
{
    int slot = 0;
    while (slot < SLOTS && (SLOT(slot)[DEVICE] != BALLOON || SLOT(slot)[MAGIC] != VIRTIO || SLOT(slot)[VERSION] != MODERN))
        slot++;
    if (slot == SLOTS || (queues = page_alloc()) == NULL)
        return 0;
    device = SLOT(slot);
    device[STATUS] = 0;
    device[STATUS] = ACKNOWLEDGE | DRIVER_HERE;
    device[FEATURES_HALF] = 0;
    device[FEATURES] = DEFLATE_ON_OOM;
    device[FEATURES_HALF] = 1;
    device[FEATURES] = VERSION_1_HIGH;
    device[STATUS] = ACKNOWLEDGE | DRIVER_HERE | FEATURES_OK;
    for (uint32_t i = 0; i < QUEUES; i++) {
        device[QUEUE_SELECT] = i;
        device[QUEUE_SIZE] = SIZE;
        put(DESCRIPTORS, queues[i].descriptors);
        put(DRIVER, &queues[i].driver);
        put(DEVICE_RING, &queues[i].device);
        queues[i].driver.flags = NO_INTERRUPT;
        device[QUEUE_READY] = 1;
    }
    device[STATUS] = ACKNOWLEDGE | DRIVER_HERE | FEATURES_OK | DRIVER_OK;
    inflate(device[WANTED]);
    return (uint32_t)slot + 1;
}

void balloon_interrupt(void)
{
    device[ACKNOWLEDGE_INTERRUPT] = device[PENDING];
    uint64_t wanted = device[WANTED];
    inflate(wanted);
    deflate(wanted);
}

#define AT_ONCE 64

/* The kernel has no other page: has it some now? */
bool balloon_relieve(void)
{
    if (inside == 0)
        return false;
    deflate(inside < AT_ONCE ? 0 : inside - AT_ONCE);
    return true;
}
