/* What the kernel asks of the machine, when a hypervisor gives it the machine and it knows: calls to the
 * hypervisor (hypercalls.h), and words of the page that it shares with it.
 *
 * native/machine.h has the same names with privileged instructions behind them. Nothing else of the
 * kernel executes a privileged instruction or touches a device: the difference between the two folders
 * is the price of paravirtualization.
 *
 * A call costs a switch to the hypervisor and back. So what can wait is put into a batch, which goes
 * along with the next call that cannot: at the latest with the return to user mode. */
#pragma once
#include "../riscv.h"
#include "hypercalls.h"

/* calls.c */
extern struct pv_shared shared;
extern bool in_tables; /* the kernel's tables are in use */
void call_later(uint64_t number, uint64_t argument0, uint64_t argument1);
long call_now(uint64_t number, uint64_t argument0, uint64_t argument1);
long call_for(uint64_t number, uint64_t argument0, uint64_t argument1);
void calls_flush(void);

/* Where the trap that is being served came from, and why. */
static inline uint64_t trap_cause(void)
{
    return shared.cause;
}

static inline uint64_t trap_pc(void)
{
    return shared.pc;
}

static inline uint64_t trap_value(void)
{
    return shared.value;
}

static inline bool trap_from_kernel(void)
{
    return shared.privilege != 0;
}

/* Where the next trap from user mode puts its registers. */
static inline void trap_frame_set(struct frame *frame)
{
    shared.stack = (uint64_t)frame;
}

/* The hypervisor may move the machine to where the counter stands elsewhere, between any two of these. */
static inline uint64_t time_now(void)
{
    const volatile struct pv_shared *now = &shared;
    uint64_t version, time;
    do {
        version = now->time_version;
        asm volatile("rdtime %0" : "=r"(time));
        time += now->time_offset;
    } while (version != now->time_version);
    return time;
}

static inline void wait_for_interrupt(void)
{
    call_now(PV_BLOCK, 0, 0);
}

/* Change an entry of a page table that may be in use. It holds after a fence. */
static inline void table_set(pte_t *entry, pte_t value)
{
    if (in_tables)
        call_later(PV_SET_ENTRY, (uint64_t)entry, value);
    else
        *entry = value;
}

/* Reading entries back tells what table_set() wrote. */
static inline void tables_settle(void)
{
    calls_flush();
}

/* These pages are a new space's tables. */
static inline bool tables_begin(pte_t *root)
{
    return call_now(PV_PIN, (uint64_t)root, 0) == 0;
}

/* They are a space's tables no longer. */
static inline void tables_end(pte_t *root)
{
    call_now(PV_UNPIN, (uint64_t)root, 0);
}

static inline void fence_all(void)
{
    call_later(PV_FLUSH, -1UL, 0);
}

/* Spaces have no identifiers: the hypervisor keeps them apart. */
static inline void fence_space(uint64_t asid)
{
    (void)asid;
    fence_all();
}

static inline void fence_page(uint64_t address, uint64_t asid)
{
    (void)asid;
    call_later(PV_FLUSH, address, 0);
}

static inline void space_enter(const pte_t *root, uint64_t asid)
{
    (void)asid;
    call_later(PV_SET_SPACE, (uint64_t)root, 0);
}

/* Turn paging on. Does the machine tell spaces apart by itself? */
static inline bool paging_begin(pte_t *root)
{
    call_later(PV_PIN, (uint64_t)root, 0);
    call_later(PV_SET_SPACE, (uint64_t)root, 0);
    calls_flush();
    in_tables = true;
    return true;
}

/* Between these two the kernel may touch pages of user mode: it always may, in the space that it is in. */
static inline void user_memory_open(void)
{
    calls_flush();
}

static inline void user_memory_close(void)
{
}

/* The pages of devices' registers, which the kernel maps to itself: there are none. */
#define DEVICES(MAP)

/* firmware.c: before anything else, is a hypervisor there? */
void machine_begin(void);
