/* Take memory and use all of it: store to every page, and in each later round find there what was stored. */
#include "lib.h"

#define PAGE 4096
#define PAGES_OF_MIB 256

int main(char *arguments)
{
    long mib = number(next_word(&arguments));
    const char *word = next_word(&arguments);
    long rounds = *word == '\0' ? 2 : number(word);
    if (mib < 0 || rounds < 0) {
        print("usage: fill MIB [ROUNDS, 0: for ever]\n");
        return 2;
    }
    long heap = sbrk(mib * PAGES_OF_MIB * PAGE);
    if (heap < 0) {
        print("fill: %s\n", error_text(heap));
        return 1;
    }
    for (long round = 0; rounds == 0 || round < rounds; round++) {
        for (long page = 0; page < mib * PAGES_OF_MIB; page++) {
            volatile long *place = (long *)(heap + page * PAGE);
            if (*place != (round == 0 ? 0 : round + page)) {
                print("fill: page %d lost what was stored there\n", page);
                return 1;
            }
            *place = round + 1 + page;
        }
    }
    print("fill: %d MiB held, %d rounds\n", mib, rounds);
    return 0;
}
