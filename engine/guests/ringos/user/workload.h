/* The workloads that ringos is measured with. Each does count of one thing and returns a checksum of
 * what it saw, which depends on nothing but count: not on time, not on where it runs. */
#pragma once
#include "lib.h"

struct workload {
    const char *name;
    const char *unit;
    uint64_t (*run)(uint64_t count);
};

extern const struct workload workloads[];
enum { COMPUTE, SYSCALL, PAGEFAULT, SWITCH, IO, TIMER, DISK, PACKET, WORKLOADS };

/* The other side of the switch workload: add one to each word it receives and send it back. */
_Noreturn void answer(void);
