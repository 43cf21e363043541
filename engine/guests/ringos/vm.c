/* Address spaces: Sv39 page tables, and pages that appear when they are first touched.
 *
 *      0x00100000  the devices of machine.h, kernel only
 *      0x40000000  TEXT  in place: the pages of the program's file inside the kernel's image
 *                  DATA  a copy of the file's page, or zeros
 *      0x401f0000  STACK zeros
 *      0x40200000  HEAP  zeros, up to what sbrk() granted
 *      0x80200000  kernel: text r-x, rodata r--, the rest of RAM rw-
 *
 * A process has its own root table; the entries for the devices and for RAM point to tables that all
 * roots share, and never change after boot. So the kernel runs on the page table of whichever process
 * called it, sees the process's memory at the process's addresses (only in copy_*, between user_memory_open() and user_memory_close()),
 * and physical memory at its own. Address 0 is never mapped.
 *
 * A fence stands where the architecture demands it (Privileged ISA, 4.2.1): after an entry changed,
 * valid or not, before the change must be seen. Each process has its own address-space identifier;
 * where the hart has none, entering a space fences everything. */
#include "kernel.h"

#define ENTRIES 512
#define LEVELS 3

static pte_t *kernel_root;
static bool has_asids;

static pte_t pte_of(uint64_t physical, uint64_t flags)
{
    return physical >> 12 << 10 | flags | PTE_V;
}

static void *page_of(pte_t pte)
{
    return (void *)(pte >> 10 << 12);
}

static pte_t *slot(pte_t *table, uint64_t address, int level)
{
    return &table[address >> (12 + 9 * level) & (ENTRIES - 1)];
}

/* The entry of a 4 KiB page; NULL if a table is missing on the way. */
static pte_t *entry_for(pte_t *table, uint64_t address)
{
    for (int level = LEVELS - 1; level > 0; level--) {
        pte_t entry = *slot(table, address, level);
        if (!(entry & PTE_V))
            return NULL;
        table = page_of(entry);
    }
    return slot(table, address, 0);
}

/* Make value the entry for address at the given level (2 is the root, 0 holds 4 KiB pages). Tables that
 * are missing on the way are filled first and hung in last: one entry of a table in use changes. */
static bool map(pte_t *table, uint64_t address, int level, pte_t value)
{
    int at = LEVELS - 1;
    pte_t *entry = slot(table, address, at);
    while (at > level && *entry & PTE_V)
        entry = slot(page_of(*entry), address, --at);
    for (int below = level; below < at; below++) {
        pte_t *fresh = page_alloc();
        if (fresh == NULL) {
            while (below-- > level) {
                fresh = page_of(value);
                value = *slot(fresh, address, below);
                page_free(fresh);
            }
            return false;
        }
        *slot(fresh, address, below) = value;
        value = pte_of((uint64_t)fresh, 0);
    }
    table_set(entry, value);
    return true;
}

/* Map [start, end) of the kernel to itself, in pages of the given level. Its tables are not in use yet. */
static void map_kernel(uint64_t start, uint64_t end, int level, uint64_t access)
{
    uint64_t size = PAGE_SIZE << (9 * level);
    for (uint64_t address = start; address < end;) {
        if (!map(kernel_root, address, level, 0))
            panic("not enough memory for the kernel's page tables");
        pte_t *table = kernel_root;
        for (int at = LEVELS - 1; at > level; at--)
            table = page_of(*slot(table, address, at));
        do {
            *slot(table, address, level) = pte_of(address, access | PTE_G | PTE_A | PTE_D);
            address += size;
        } while (address < end && address % (size * ENTRIES) != 0);
    }
}

/* Turn paging on. RAM beyond the first GiB is left alone. */
void vm_init(uint64_t memory_end)
{
    uint64_t first = ROUND_UP((uint64_t)kernel_end, MEGAPAGE_SIZE);
    uint64_t last = ROUND_DOWN(memory_end, MEGAPAGE_SIZE);
    if (last > 0xc0000000)
        last = 0xc0000000;
    memory_init((uint64_t)kernel_end, last);
    kernel_root = page_alloc();
    if (kernel_root == NULL)
        panic("not enough memory for the kernel's page tables");
    map_kernel((uint64_t)kernel_start, (uint64_t)text_end, 0, PTE_R | PTE_X);
    map_kernel((uint64_t)text_end, (uint64_t)rodata_end, 0, PTE_R);
    map_kernel((uint64_t)rodata_end, first, 0, PTE_R | PTE_W);
    map_kernel(first, last, 1, PTE_R | PTE_W);
#define MAP(start, end, level) map_kernel(start, end, level, PTE_R | PTE_W);
    DEVICES(MAP)
#undef MAP
    has_asids = paging_begin(kernel_root);
}

bool vm_create(struct space *space, uint64_t asid)
{
    memset(space, 0, sizeof *space);
    space->root = page_alloc();
    if (space->root == NULL)
        return false;
    space->asid = has_asids ? asid : 0;
    space->root[0] = kernel_root[0];
    space->root[2] = kernel_root[2];
    space->regions[STACK] = (struct region){
        .start = USER_STACK_TOP - USER_STACK_SIZE, .end = USER_STACK_TOP, .access = PTE_R | PTE_W};
    space->regions[HEAP] =
        (struct region){.start = USER_STACK_TOP, .end = USER_STACK_TOP, .access = PTE_R | PTE_W};
    space->heap_end = USER_STACK_TOP;
    if (tables_begin(space->root))
        return true;
    page_free(space->root);
    return false;
}

void vm_enter(const struct space *space)
{
    space_enter(space->root, space->asid);
    if (!has_asids)
        fence_all();
}

/* Give the pages behind [start, end) back. The caller fences. */
static void unmap(struct space *space, uint64_t start, uint64_t end)
{
    for (uint64_t address = start; address < end; address += PAGE_SIZE) {
        pte_t *entry = entry_for(space->root, address);
        if (entry == NULL) {
            address = ROUND_DOWN(address, MEGAPAGE_SIZE) + MEGAPAGE_SIZE - PAGE_SIZE;
            continue;
        }
        if (*entry & PTE_OWNED) {
            page_free(page_of(*entry));
            space->pages--;
        }
        table_set(entry, 0);
    }
}

/* Give everything back. The space must not be the one that the hart is in. */
void vm_destroy(struct space *space)
{
    for (int i = 0; i < REGIONS; i++)
        unmap(space, space->regions[i].start, space->regions[i].end);
    tables_end(space->root);
    pte_t *middle = space->root[1] & PTE_V ? page_of(space->root[1]) : NULL;
    for (int i = 0; middle != NULL && i < ENTRIES; i++)
        if (middle[i] & PTE_V)
            page_free(page_of(middle[i]));
    if (middle != NULL)
        page_free(middle);
    page_free(space->root);
    fence_space(space->asid);
}

/* Make the page at address present. Fails if the space has no such page, if it does not grant this
 * access, or if memory is exhausted. */
long vm_fault(struct space *space, uint64_t address, uint64_t access)
{
    uint64_t page = ROUND_DOWN(address, PAGE_SIZE);
    tables_settle();
    for (struct region *region = space->regions; region < space->regions + REGIONS; region++) {
        if (page < region->start || page >= region->end || !(region->access & access))
            continue;
        pte_t *entry = entry_for(space->root, page);
        if (entry != NULL && *entry & PTE_V)
            return E(FAULT);
        uint64_t offset = page - region->start, flags = region->access | PTE_U | PTE_A;
        bool from_image = offset < region->image_bytes;
        if (from_image && !(region->access & PTE_W)) {
            if (!map(space->root, page, 0, pte_of((uint64_t)region->image + offset, flags)))
                return E(NO_MEMORY);
        } else {
            void *fresh = page_alloc();
            if (fresh == NULL)
                return E(NO_MEMORY);
            uint64_t bytes = region->image_bytes - offset;
            if (from_image)
                memcpy(fresh, region->image + offset, bytes < PAGE_SIZE ? bytes : PAGE_SIZE);
            if (!map(space->root, page, 0, pte_of((uint64_t)fresh, flags | PTE_D | PTE_OWNED))) {
                page_free(fresh);
                return E(NO_MEMORY);
            }
            space->pages++;
        }
        fence_page(page, space->asid);
        return 0;
    }
    return E(FAULT);
}

/* Move the end of the heap; return where it was. */
long vm_sbrk(struct space *space, int64_t bytes)
{
    struct region *heap = &space->regions[HEAP];
    uint64_t old = space->heap_end, new = old + (uint64_t)bytes;
    if (bytes >= 0 ? (uint64_t)bytes > USER_HEAP_END - old : (uint64_t)-bytes > old - heap->start)
        return E(NO_MEMORY);
    uint64_t end = ROUND_UP(new, PAGE_SIZE);
    if (end < heap->end) {
        unmap(space, end, heap->end);
        fence_space(space->asid);
    }
    space->heap_end = new;
    heap->end = end;
    return (long)old;
}

/* 0 if the current process may access all of [address, address + bytes); its pages are present then. */
static long user_range(uint64_t address, uint64_t bytes, uint64_t access)
{
    if (address < USER_START || address > USER_HEAP_END || bytes > USER_HEAP_END - address)
        return E(FAULT);
    uint64_t wanted = PTE_V | PTE_U | access;
    tables_settle();
    for (uint64_t page = ROUND_DOWN(address, PAGE_SIZE); page < address + bytes; page += PAGE_SIZE) {
        pte_t *entry = entry_for(current->space.root, page);
        if (entry != NULL && (*entry & wanted) == wanted)
            continue;
        long error = vm_fault(&current->space, page, access);
        if (error < 0)
            return error;
    }
    return 0;
}

long copy_from_user(void *to, uint64_t from, uint64_t bytes)
{
    long error = user_range(from, bytes, PTE_R);
    if (error < 0)
        return error;
    user_memory_open();
    memcpy(to, (const void *)from, bytes);
    user_memory_close();
    return 0;
}

long copy_to_user(uint64_t to, const void *from, uint64_t bytes)
{
    long error = user_range(to, bytes, PTE_W);
    if (error < 0)
        return error;
    user_memory_open();
    memcpy((void *)to, from, bytes);
    user_memory_close();
    return 0;
}

/* Copy a text and its final zero; page by page, for it may end just before one that is not there. */
long copy_text_from_user(char *to, uint64_t from, uint64_t capacity)
{
    for (uint64_t done = 0; done < capacity;) {
        uint64_t address = from + done, bytes = PAGE_SIZE - address % PAGE_SIZE;
        if (bytes > capacity - done)
            bytes = capacity - done;
        long error = copy_from_user(to + done, address, bytes);
        if (error < 0)
            return error;
        for (; bytes > 0; bytes--, done++)
            if (to[done] == '\0')
                return 0;
    }
    return E(TOO_LONG);
}

/* Write the arguments of a program that has not started at the top of its stack. */
bool vm_put_arguments(struct space *space, const char *arguments)
{
    if (vm_fault(space, USER_STACK_TOP - ARGUMENTS_MAX, PTE_W) < 0)
        return false;
    tables_settle();
    uint8_t *page = page_of(*entry_for(space->root, USER_STACK_TOP - ARGUMENTS_MAX));
    memcpy(page + PAGE_SIZE - ARGUMENTS_MAX, arguments, strlen(arguments) + 1);
    return true;
}
