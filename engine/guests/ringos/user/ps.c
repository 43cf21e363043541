/* List the processes. */
#include "lib.h"

int main(char *arguments)
{
    (void)arguments;
    static const char *const states[] = {
        [RUNNABLE] = "runnable", [SLEEPING] = "sleeping", [ZOMBIE] = "zombie"};
    struct process_info all[PROCESSES];
    long count = processes(all, PROCESSES);
    print("pid parent pages state    name\n");
    for (long i = 0; i < count; i++) {
        const struct process_info *p = &all[i];
        print("%s%d %s%d %s%d %s %s\n", p->pid < 10 ? "  " : p->pid < 100 ? " " : "", (long)p->pid,
              p->parent < 10 ? "     " : p->parent < 100 ? "    " : "   ", (long)p->parent,
              p->pages < 10 ? "    " : p->pages < 100 ? "   " : "  ", (long)p->pages, states[p->state],
              p->name);
    }
    return 0;
}
