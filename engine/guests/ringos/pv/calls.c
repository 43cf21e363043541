/* Calls to the hypervisor, one by one and in batches (hypercalls.h; the SBI specification, chapter 3). */
#include "../kernel.h"

struct pv_shared shared __attribute__((aligned(4096)));
_Static_assert(sizeof shared == PAGE_SIZE, "what is shared is one page");
struct pv_call batch[PV_BATCH];
uint64_t batch_count; /* trapvec.S sends it along with the return to user mode */
bool in_tables;

struct answer {
    long error, value;
};

static struct answer call(uint64_t number, uint64_t argument0, uint64_t argument1)
{
    register uint64_t a0 asm("a0") = argument0;
    register uint64_t a1 asm("a1") = argument1;
    register uint64_t a6 asm("a6") = number;
    register uint64_t a7 asm("a7") = PV_EXTENSION;
    asm volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
    return (struct answer){(long)a0, (long)a1};
}

/* Do what waits. None of it can be refused by a hypervisor that works, unless memory is exhausted. */
void calls_flush(void)
{
    if (batch_count == 0)
        return;
    uint64_t count = batch_count;
    batch_count = 0;
    struct answer answer = call(PV_MULTICALL, (uint64_t)batch, count);
    if (answer.error != 0 || answer.value != 0)
        panic("the hypervisor refused a call of a batch");
}

void call_later(uint64_t number, uint64_t argument0, uint64_t argument1)
{
    if (batch_count == PV_BATCH)
        calls_flush();
    batch[batch_count++] = (struct pv_call){number, argument0, argument1, 0};
}

/* The call's error; what waits is done before it. */
long call_now(uint64_t number, uint64_t argument0, uint64_t argument1)
{
    calls_flush();
    return call(number, argument0, argument1).error;
}

/* The call's value, or its error, which is below zero. */
long call_for(uint64_t number, uint64_t argument0, uint64_t argument1)
{
    calls_flush();
    struct answer answer = call(number, argument0, argument1);
    return answer.error < 0 ? answer.error : answer.value;
}
