/* Integer loops: a running mix over an array that fits the first-level cache. */
#include "bench.h"

static u64 words[1024];

int main(void)
{
    u64 x = 1, y = 2;
    for (u64 round = 0; round < ROUNDS; round++)
        for (int i = 0; i < 1024; i++) {
            words[i] += x;
            x ^= words[i] << 3;
            y += x >> 5;
        }
    report(x + y);
    return 0;
}
