/* The first process: starts the shell with the machine's boot arguments, and again without them
 * whenever it ends. */
#include "lib.h"

int main(char *arguments)
{
    for (;;) {
        long pid = spawn("sh", arguments, SPAWN_FOREGROUND);
        if (pid < 0) {
            print("init: cannot start the shell: %s\n", error_text(pid));
            return 1;
        }
        while (wait(NULL, 0) != pid)
            continue;
        arguments = "";
    }
}
