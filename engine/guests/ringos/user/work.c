/* Run one workload and print what it did.
 *
 * Whoever measures reads the marks: between the first two lies a workload with nothing to do, with all that it has
 * touched warm, between the next two once more, and between the last two the same with count of its units. The
 * difference is the units; of the two without any, the shorter one has not been interrupted. */
#include "workload.h"

int main(char *arguments)
{
    const char *kind = next_word(&arguments);
    if (same_text(kind, "answer"))
        answer();
    long count = number(next_word(&arguments));
    for (const struct workload *w = workloads; count >= 0 && w < workloads + WORKLOADS; w++) {
        if (same_text(kind, w->name)) {
            w->run(0);
            mark();
            w->run(0);
            mark();
            w->run(0);
            mark();
            uint64_t checksum = w->run((uint64_t)count);
            mark();
            print("work %s %d: %d %s, checksum %x\n", w->name, count, count, w->unit, checksum);
            return 0;
        }
    }
    print("usage: work compute|syscall|pagefault|switch|io|timer|disk|packet N\n");
    return 2;
}
