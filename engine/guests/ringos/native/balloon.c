/* The balloon: a virtio memory balloon (Virtual I/O Device 1.2, section 5.5). The host says how many pages it should hold;
 * what is free goes in, and the host need not have memory for it. The kernel takes pages back when the host wants fewer, or
 * when it has no others. One buffer at a time, of at most a page's worth of page numbers.
 *
 * The numbers of the pages inside are kept in lists, each a page of its own that is not in the balloon. */
#include "virtio.h"

enum { INFLATE, DEFLATE }; /* its queues */
enum { WANTED = CONFIG, ACTUAL };
#define FEATURE_DEFLATE_ON_OOM (1u << 2)
#define NUMBERS (PAGE_SIZE / 4 - 4)

static struct queue *queues; /* a page for both */
static struct list {
    struct list *next;
    uint64_t count;
    uint32_t numbers[NUMBERS];
} *lists;
static uint64_t inside;
static volatile uint32_t *device;
uint32_t balloon_source;

static void tell(uint32_t which, const uint32_t *numbers, uint64_t count)
{
    queues[which].descriptors[0].address = (uint64_t)numbers;
    queues[which].descriptors[0].bytes = (uint32_t)(count * sizeof *numbers);
    virtio_do(device, which, &queues[which]);
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

static void follow(void)
{
    uint64_t wanted = device[WANTED];
    inflate(wanted);
    deflate(wanted);
}

void balloon_init(void)
{
    queues = page_alloc();
    if (queues == NULL || (device = virtio_find(VIRTIO_BALLOON, FEATURE_DEFLATE_ON_OOM)) == NULL)
        return;
    for (uint32_t which = INFLATE; which <= DEFLATE; which++) {
        queues[which].driver.flags = NO_INTERRUPT;
        virtio_queue(device, which, &queues[which]);
    }
    virtio_start(device);
    balloon_source = virtio_source(device);
    interrupts_from(balloon_source);
    follow();
}

void balloon_interrupt(void)
{
    device[INTERRUPT_ACK] = INTERRUPT_CONFIG;
    follow();
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
