/* Two buffers of 16 MiB copied to and fro under Sv39 with pages of 4 KiB, in S mode. */
#include "bench.h"

#define BYTES (16 << 20)
#define PAGE 4096
static u64 root[512] __attribute__((aligned(PAGE)));
static u64 middle[512] __attribute__((aligned(PAGE)));
static u64 leaves[40][512] __attribute__((aligned(PAGE)));
static u64 from[BYTES / 8] __attribute__((aligned(PAGE))), to[BYTES / 8] __attribute__((aligned(PAGE)));

/* The value of satp: memory and devices where they are. */
u64 satp(void)
{
    root[0] = 0xcf; /* the first gigabyte: the UART and the finisher */
    root[2] = (u64)middle >> 2 | 1;
    for (int i = 0; i < 40; i++) {
        middle[i] = (u64)leaves[i] >> 2 | 1;
        for (u64 j = 0; j < 512; j++)
            leaves[i][j] = (0x80000000ul + (i * 512 + j) * PAGE) >> 2 | 0xcf;
    }
    return 8ul << 60 | (u64)root >> 12;
}

__attribute__((noinline)) static void copy(u64 *restrict target, const u64 *restrict source)
{
    for (int i = 0; i < BYTES / 8; i += 4) {
        u64 a = source[i], b = source[i + 1], c = source[i + 2], d = source[i + 3];
        target[i] = a, target[i + 1] = b, target[i + 2] = c, target[i + 3] = d;
    }
}

int main(void)
{
    for (int i = 0; i < BYTES / 8; i += PAGE / 8)
        from[i] = i;
    for (u64 round = 0; round < ROUNDS; round++) {
        copy(to, from);
        copy(from, to);
    }
    report(from[BYTES / 8 - PAGE / 8]);
    return 0;
}
