/* The disk, in blocks of a page: what programs read and write passes through one page of the kernel's. */
#include "kernel.h"

#define SECTOR 512

static uint8_t *page; /* taken with the first block */
static uint64_t sectors;

static long check(uint64_t block)
{
    if (sectors == 0)
        sectors = disk_begin();
    if (sectors == 0)
        return E(NO_DISK);
    if (page == NULL)
        page = page_alloc();
    if (page == NULL)
        return E(NO_MEMORY);
    return block < sectors / (PAGE_SIZE / SECTOR) ? 0 : E(INVALID);
}

long disk_read(uint64_t block, uint64_t buffer)
{
    long error = check(block);
    if (error < 0)
        return error;
    if (!disk_transfer(block * (PAGE_SIZE / SECTOR), page, false))
        return E(INVALID);
    return copy_to_user(buffer, page, PAGE_SIZE);
}

long disk_write(uint64_t block, uint64_t buffer)
{
    long error = check(block);
    if (error == 0)
        error = copy_from_user(page, buffer, PAGE_SIZE);
    if (error < 0)
        return error;
    return disk_transfer(block * (PAGE_SIZE / SECTOR), page, true) ? 0 : E(INVALID);
}
