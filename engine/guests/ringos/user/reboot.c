/* Start the machine again. */
#include "lib.h"

int main(char *arguments)
{
    (void)arguments;
    return (int)reboot();
}
