/* Copy the console's lines to the console, up to ^D. */
#include "lib.h"

int main(char *arguments)
{
    (void)arguments;
    char line[ARGUMENTS_MAX];
    for (;;) {
        long length = read(line, sizeof line);
        if (length < 0)
            print("cat: %s\n", error_text(length));
        if (length <= 0)
            return length < 0;
        write(line, (size_t)length);
    }
}
