/* Page tables and trap causes, which are the same with and without a hypervisor below (RISC-V Privileged
 * ISA 1.12, chapters 4.1 to 4.4). */
#pragma once
#include <stdint.h>

#define CAUSE_INTERRUPT (1UL << 63)

#define CAUSE_USER_ECALL 8
#define CAUSE_INSTRUCTION_PAGE_FAULT 12
#define CAUSE_LOAD_PAGE_FAULT 13
#define CAUSE_STORE_PAGE_FAULT 15

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
