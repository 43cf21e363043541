/* Loop for ever without a system call: only the timer takes the hart away from it. */
#include "lib.h"

int main(char *arguments)
{
    (void)arguments;
    for (;;)
        asm volatile("" : : : "memory");
}
