/* End the machine, with a status from 0 to 255. */
#include "lib.h"

int main(char *arguments)
{
    const char *word = next_word(&arguments);
    long error = poweroff(*word == '\0' ? 0 : number(word));
    print("poweroff: %s: %s\n", word, error_text(error));
    return 1;
}
