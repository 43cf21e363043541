/* End a process. */
#include "lib.h"

int main(char *arguments)
{
    const char *word = next_word(&arguments);
    long error = kill(number(word));
    if (error < 0)
        print("kill: %s: %s\n", word, error_text(error));
    return error < 0;
}
