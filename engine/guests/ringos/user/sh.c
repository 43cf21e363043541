/* The shell. A line is commands with ; or & between them: ; waits for the command, & does not.
 *
 * What follows run= in the boot arguments is the first line. */
#include "lib.h"

static const char help_text[] =
    "cat                 copy what you type, to ^D\n"
    "crash [KIND]        fault: null store jump illegal breakpoint stack pointers\n"
    "demo                a little of everything, for ever\n"
    "echo TEXT           print TEXT\n"
    "fill MIB [ROUNDS]   take memory and use all of it, 2 times; 0: for ever\n"
    "kill PID            end a process\n"
    "ping [STATION [N]]  send packets to 10.0.X.Y; without it: who is this?\n"
    "poweroff [STATUS]   end the machine\n"
    "primes [LIMIT]      print the primes below LIMIT\n"
    "ps                  list the processes\n"
    "reboot              start the machine again\n"
    "spin                loop for ever, without a system call\n"
    "work KIND N         do N of: compute syscall pagefault switch io timer disk packet\n"
    "A; B runs B after A, A & runs A in the background, ^C ends what is in the foreground.\n";

static void report(long pid, int status, bool in_background)
{
    if (in_background)
        print("[%d] exit %d\n", pid, (long)status);
    else if (status != 0)
        print("[exit %d]\n", (long)status);
}

static void run(char *command, bool in_background)
{
    char *name = next_word(&command);
    if (*name == '\0')
        return;
    if (same_text(name, "help")) {
        write(help_text, sizeof help_text - 1);
        return;
    }
    long pid = spawn(name, command, in_background ? 0 : SPAWN_FOREGROUND);
    if (pid < 0) {
        print("sh: %s: %s%s\n", name, error_text(pid), pid == E(NO_PROGRAM) ? " (try help)" : "");
        return;
    }
    if (in_background) {
        print("[%d]\n", pid);
        return;
    }
    for (;;) {
        int status;
        long ended = wait(&status, 0);
        report(ended, status, ended != pid);
        if (ended == pid)
            return;
    }
}

static void run_line(char *line)
{
    while (*line != '\0') {
        char *end = line;
        while (*end != '\0' && *end != ';' && *end != '&')
            end++;
        char separator = *end;
        *end = '\0';
        run(line, separator == '&');
        line = separator == '\0' ? end : end + 1;
    }
}

int main(char *arguments)
{
    for (; *arguments != '\0'; arguments++) {
        if (starts_with(arguments, "run=")) {
            run_line(arguments + 4);
            break;
        }
    }
    for (;;) {
        int status;
        for (long pid; (pid = wait(&status, WAIT_POLL)) > 0;)
            report(pid, status, true);
        print("ringos$ ");
        char line[ARGUMENTS_MAX];
        long length = read(line, sizeof line - 1);
        if (length == E(INTERRUPTED))
            continue;
        if (length <= 0) {
            print("\n");
            return 0;
        }
        line[line[length - 1] == '\n' ? length - 1 : length] = '\0';
        run_line(line);
    }
}
