/* Run one workload and print what it did. */
#include "workload.h"

int main(char *arguments)
{
    const char *kind = next_word(&arguments);
    if (same_text(kind, "answer"))
        answer();
    long count = number(next_word(&arguments));
    for (const struct workload *w = workloads; count >= 0 && w < workloads + WORKLOADS; w++) {
        if (same_text(kind, w->name)) {
            uint64_t checksum = w->run((uint64_t)count);
            print("work %s %d: %d %s, checksum %x\n", w->name, count, count, w->unit, checksum);
            return 0;
        }
    }
    print("usage: work compute|syscall|pagefault|switch|io N\n");
    return 2;
}
