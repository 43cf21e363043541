/* Physical pages. Those that were never used lie between fresh and limit; those that came back hang on
 * a list threaded through their own first words. So booting touches no page that nobody asked for. */
#include "kernel.h"

struct free_page {
    struct free_page *next;
};

static struct free_page *returned;
static uint64_t fresh, limit;

void memory_init(uint64_t start, uint64_t end)
{
    fresh = ROUND_UP(start, PAGE_SIZE);
    limit = ROUND_DOWN(end, PAGE_SIZE);
}

/* A page with anything in it, or NULL when all are taken. */
void *page_take(void)
{
    void *page = returned;
    if (returned != NULL) {
        returned = returned->next;
    } else if (fresh < limit) {
        page = (void *)fresh;
        fresh += PAGE_SIZE;
    }
    return page;
}

/* A page of zeros, or NULL when memory is exhausted. */
void *page_alloc(void)
{
    void *page = page_take();
    if (page == NULL && balloon_relieve())
        page = page_take();
    if (page == NULL)
        return NULL;
    uint64_t *word = page, *end = word + PAGE_SIZE / 8;
    for (; word < end; word += 8)
        word[0] = word[1] = word[2] = word[3] = word[4] = word[5] = word[6] = word[7] = 0;
    return page;
}

void page_free(void *page)
{
    struct free_page *head = page;
    head->next = returned;
    returned = head;
}
