/* Byte stores with every stride over a megabyte: the sieve of Eratosthenes. */
#include "bench.h"

#define LIMIT (1 << 20)
static u8 composite[LIMIT];

int main(void)
{
    u64 primes = 0;
    for (u64 round = 0; round < ROUNDS; round++) {
        for (u32 i = 0; i < LIMIT; i++)
            composite[i] = 0;
        for (u32 i = 2; i < LIMIT; i++) {
            if (composite[i])
                continue;
            primes++;
            for (u32 j = i + i; j < LIMIT; j += i)
                composite[j] = 1;
        }
    }
    report(primes);
    return 0;
}
