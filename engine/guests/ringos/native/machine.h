/* What the kernel asks of the machine, on a machine that it has to itself: privileged instructions
 * (RISC-V Privileged ISA 1.12, chapters 3.3 and 4.1 to 4.4).
 *
 * pv/machine.h has the same names with calls to a hypervisor behind them. Nothing else of the kernel
 * executes a privileged instruction or touches a device: the difference between the two folders is
 * the price of paravirtualization. */
#pragma once
#include "../riscv.h"

#define csr_read(csr) \
    ({ \
        uint64_t value_; \
        asm volatile("csrr %0, " #csr : "=r"(value_) : : "memory"); \
        value_; \
    })
#define csr_write(csr, value) asm volatile("csrw " #csr ", %0" : : "r"((uint64_t)(value)) : "memory")
#define csr_set(csr, bits) asm volatile("csrs " #csr ", %0" : : "r"((uint64_t)(bits)) : "memory")
#define csr_clear(csr, bits) asm volatile("csrc " #csr ", %0" : : "r"((uint64_t)(bits)) : "memory")

#define SSTATUS_SPIE (1UL << 5) /* interrupts are on after sret */
#define SSTATUS_SPP (1UL << 8)  /* the trap came from supervisor mode */
#define SSTATUS_SUM (1UL << 18) /* the kernel may touch pages that have PTE_U */

#define INTERRUPT_TIMER 5
#define INTERRUPT_EXTERNAL 9

#define SATP_SV39 (8UL << 60)
#define SATP_ASID_SHIFT 44
#define SATP_ASID_MASK 0xffffUL

/* Where the trap that is being served came from, and why. */
static inline uint64_t trap_cause(void)
{
    return csr_read(scause);
}

static inline uint64_t trap_pc(void)
{
    return csr_read(sepc);
}

static inline uint64_t trap_value(void)
{
    return csr_read(stval);
}

static inline bool trap_from_kernel(void)
{
    return csr_read(sstatus) & SSTATUS_SPP;
}

/* Where the next trap from user mode puts its registers. */
static inline void trap_frame_set(struct frame *frame)
{
    csr_write(sscratch, frame);
}

static inline uint64_t time_now(void)
{
    return csr_read(time);
}

static inline void wait_for_interrupt(void)
{
    asm volatile("wfi" : : : "memory");
}

/* Change an entry of a page table that may be in use. It holds after a fence. */
static inline void table_set(pte_t *entry, pte_t value)
{
    *entry = value;
}

/* Reading entries back tells what table_set() wrote. */
static inline void tables_settle(void)
{
}

/* These pages are a new space's tables. */
static inline bool tables_begin(pte_t *root)
{
    (void)root;
    return true;
}

/* They are a space's tables no longer. */
static inline void tables_end(pte_t *root)
{
    (void)root;
}

static inline void fence_all(void)
{
    asm volatile("sfence.vma zero, zero" : : : "memory");
}

static inline void fence_space(uint64_t asid)
{
    asm volatile("sfence.vma zero, %0" : : "r"(asid) : "memory");
}

static inline void fence_page(uint64_t address, uint64_t asid)
{
    asm volatile("sfence.vma %0, %1" : : "r"(address), "r"(asid) : "memory");
}

static inline void space_enter(const pte_t *root, uint64_t asid)
{
    csr_write(satp, SATP_SV39 | asid << SATP_ASID_SHIFT | (uint64_t)root >> 12);
}

/* Turn paging on. Does the machine tell spaces apart by their identifiers? */
static inline bool paging_begin(pte_t *root)
{
    uint64_t satp = SATP_SV39 | (uint64_t)root >> 12;
    csr_write(satp, satp | SATP_ASID_MASK << SATP_ASID_SHIFT);
    uint64_t asids = csr_read(satp) >> SATP_ASID_SHIFT & SATP_ASID_MASK;
    csr_write(satp, satp);
    fence_all();
    return asids >= 63;
}

/* Between these two the kernel may touch pages of user mode. */
static inline void user_memory_open(void)
{
    csr_set(sstatus, SSTATUS_SUM);
}

static inline void user_memory_close(void)
{
    csr_clear(sstatus, SSTATUS_SUM);
}

/* The pages of devices' registers, which the kernel maps to itself: start, end, level. */
#define DEVICES(MAP) \
    MAP(0x00100000, 0x00101000, 0) /* test finisher */ \
    MAP(0x0c000000, 0x0c400000, 1) /* PLIC */ \
    MAP(0x10000000, 0x10200000, 1) /* UART */

/* interrupts.c, net.c, balloon.c */
void interrupts_from(uint32_t source);
extern uint32_t net_source; /* 0: there is no card */
void net_interrupt(void);
extern uint32_t balloon_source; /* 0: there is no balloon */
void balloon_interrupt(void);

/* Before anything else: nothing to be found out. */
static inline void machine_begin(void)
{
}
