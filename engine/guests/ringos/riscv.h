/* The privileged architecture as ringos uses it (RISC-V Privileged ISA 1.12, chapters 4.1 to 4.4). */
#pragma once
#include <stdint.h>

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

#define CAUSE_INTERRUPT (1UL << 63)
#define INTERRUPT_TIMER 5
#define INTERRUPT_EXTERNAL 9

#define CAUSE_USER_ECALL 8
#define CAUSE_INSTRUCTION_PAGE_FAULT 12
#define CAUSE_LOAD_PAGE_FAULT 13
#define CAUSE_STORE_PAGE_FAULT 15

#define SATP_SV39 (8UL << 60)
#define SATP_ASID_SHIFT 44
#define SATP_ASID_MASK 0xffffUL

typedef uint64_t pte_t;
#define PTE_V (1UL << 0)
#define PTE_R (1UL << 1)
#define PTE_W (1UL << 2)
#define PTE_X (1UL << 3)
#define PTE_U (1UL << 4)
#define PTE_G (1UL << 5)
#define PTE_A (1UL << 6)
#define PTE_D (1UL << 7)
#define PTE_OWNED (1UL << 8) /* for software: the page goes back to the allocator with its mapping */

#define PAGE_SIZE 4096UL
#define MEGAPAGE_SIZE (2UL << 20)
#define ROUND_DOWN(address, unit) ((address) & ~((unit) - 1))
#define ROUND_UP(address, unit) ROUND_DOWN((address) + (unit) - 1, unit)

static inline void wait_for_interrupt(void)
{
    asm volatile("wfi" : : : "memory");
}

static inline void sfence_vma_all(void)
{
    asm volatile("sfence.vma zero, zero" : : : "memory");
}

static inline void sfence_vma_asid(uint64_t asid)
{
    asm volatile("sfence.vma zero, %0" : : "r"(asid) : "memory");
}

static inline void sfence_vma_page(uint64_t address, uint64_t asid)
{
    asm volatile("sfence.vma %0, %1" : : "r"(address), "r"(asid) : "memory");
}
