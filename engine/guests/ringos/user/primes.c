/* Print the primes below a limit, 100 if none is given: the sieve of Eratosthenes on the heap. */
#include "lib.h"

int main(char *arguments)
{
    const char *word = next_word(&arguments);
    long limit = *word == '\0' ? 100 : number(word);
    if (limit < 0) {
        print("usage: primes [LIMIT]\n");
        return 2;
    }
    long heap = sbrk(limit);
    if (heap < 0) {
        print("primes: %s\n", error_text(heap));
        return 1;
    }
    char *composite = (char *)heap;
    const char *separator = "";
    for (long i = 2; i < limit; i++) {
        if (composite[i])
            continue;
        print("%s%d", separator, i);
        separator = " ";
        for (long multiple = i * i; multiple < limit; multiple += i)
            composite[multiple] = 1;
    }
    print("\n");
    return 0;
}
