/* Print the arguments. */
#include "lib.h"

int main(char *arguments)
{
    print("%s\n", arguments);
    return 0;
}
