/* A little of every workload, a line, a nap, for ever: what the first screen shows. */
#include "workload.h"

#define NAP_US 100000

int main(char *arguments)
{
    (void)arguments;
    for (uint64_t round = 1;; round++) {
        uint64_t checksum = round;
        checksum ^= workloads[COMPUTE].run(200);
        checksum ^= workloads[SYSCALL].run(3);
        checksum ^= workloads[PAGEFAULT].run(2);
        checksum ^= workloads[SWITCH].run(2);
        print("demo: round %u, checksum %x\n", round, checksum);
        sleep(NAP_US);
    }
}
