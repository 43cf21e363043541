/* Processes: how they begin, wait, talk and end, and which of them runs.
 *
 *                         spawn                 exit, kill, fault
 *              UNUSED ----------> RUNNABLE ---------------------> ZOMBIE ---> UNUSED
 *                                  |     ^                             wait, by the parent
 *                         sleep_on |     | wake, kill
 *                                  v     |
 *                                 SLEEPING
 *
 * A process takes its children with it when it ends, and waits for them: there are no orphans, and
 * whoever wait()s for a job knows that all of it is gone.
 *
 * Whoever sleeps looks again at what it waits for when it wakes up, and at killed. */
#include "kernel.h"

static struct process table[PROCESSES];
static struct process boot; /* stands for the boot stack until the first process runs */
struct process *current = &boot;
static int last_pid;

static void set_state(struct process *process, enum process_state state)
{
    process->state = state;
    clock_stale();
}

/* The process with this pid, unless it has ended. */
static struct process *find(long pid)
{
    for (struct process *p = table; p < table + PROCESSES; p++)
        if (p->pid == pid && (p->state == RUNNABLE || p->state == SLEEPING))
            return p;
    return NULL;
}

static void free_process(struct process *process)
{
    vm_destroy(&process->space);
    if (process->kernel_stack != NULL)
        page_free(process->kernel_stack);
    set_state(process, UNUSED);
}

/* A new process that runs the named program, with a pointer to its arguments in a0. The console goes
 * to it if foreground is set and the parent has it. */
long process_spawn(const char *name, const char *arguments, struct process *parent, bool foreground)
{
    struct process *process = table;
    while (process < table + PROCESSES && process->state != UNUSED)
        process++;
    if (process == table + PROCESSES)
        return E(TOO_MANY);
    memset(process, 0, sizeof *process);
    if (!vm_create(&process->space, (uint64_t)(process - table) + 1))
        return E(NO_MEMORY);
    uint64_t entry;
    if (!program_load(name, &process->space, &entry)) {
        free_process(process);
        return E(NO_PROGRAM);
    }
    process->kernel_stack = page_alloc();
    if (process->kernel_stack == NULL || !vm_put_arguments(&process->space, arguments)) {
        free_process(process);
        return E(NO_MEMORY);
    }
    process->frame = (struct frame *)(process->kernel_stack + PAGE_SIZE) - 1;
    process->frame->pc = entry;
    process->frame->sp = process->frame->a0 = USER_STACK_TOP - ARGUMENTS_MAX;
    process->context.ra = (uint64_t)trap_return;
    process->context.sp = (uint64_t)process->frame;
    process->pid = ++last_pid;
    process->parent = parent;
    process->wake_at = NEVER;
    memcpy(process->name, name, strlen(name) + 1);
    if (foreground)
        console_hand_over(parent, process);
    set_state(process, RUNNABLE);
    return process->pid;
}

/* End the current process. Its memory is in use until another one runs: the parent frees it. */
_Noreturn void process_exit(int status)
{
    if (current->parent == NULL)
        panic("init has ended");
    current->exiting = true;
    current->killed = false;
    for (struct process *p = table; p < table + PROCESSES; p++)
        if (p->state != UNUSED && p->parent == current)
            process_kill(p->pid);
    int ignored;
    while (process_wait(&ignored, false) != E(NO_CHILD))
        continue;
    console_hand_over(current, current->parent);
    current->status = status;
    set_state(current, ZOMBIE);
    wake(current->parent);
    wake(&current->mailbox);
    schedule();
    panic("a process ran after its end");
}

/* The pid and status of a child that has ended; 0 if poll is set and none has. */
long process_wait(int *status, bool poll)
{
    for (;;) {
        bool has_children = false;
        for (struct process *p = table; p < table + PROCESSES; p++) {
            if (p->state == UNUSED || p->parent != current)
                continue;
            has_children = true;
            if (p->state == ZOMBIE) {
                *status = p->status;
                free_process(p);
                return p->pid;
            }
        }
        if (!has_children)
            return E(NO_CHILD);
        if (poll)
            return 0;
        if (current->killed)
            return E(INTERRUPTED);
        sleep_on(current);
    }
}

/* It ends when it next is about to return to user mode. */
long process_kill(long pid)
{
    struct process *process = find(pid);
    if (process == NULL)
        return E(NO_PROCESS);
    if (process->parent == NULL)
        return E(NOT_PERMITTED);
    if (!process->exiting) {
        process->killed = true;
        if (process->state == SLEEPING)
            set_state(process, RUNNABLE);
    }
    return 0;
}

/* Put a word into a process's mailbox; wait while it is full. */
long process_send(long pid, uint64_t word)
{
    for (;;) {
        struct process *to = find(pid);
        if (to == NULL)
            return E(NO_PROCESS);
        if (!to->mailbox.full) {
            to->mailbox.full = true;
            to->mailbox.sender = current->pid;
            to->mailbox.word = word;
            wake(&to->mailbox);
            return 0;
        }
        if (current->killed)
            return E(INTERRUPTED);
        sleep_on(&to->mailbox);
    }
}

/* Take the word out of our own mailbox; wait while it is empty. The result is the sender's pid. */
long process_receive(uint64_t *word)
{
    while (!current->mailbox.full) {
        if (current->killed)
            return E(INTERRUPTED);
        sleep_on(&current->mailbox);
    }
    current->mailbox.full = false;
    *word = current->mailbox.word;
    wake(&current->mailbox);
    return current->mailbox.sender;
}

long process_list(uint64_t buffer, uint64_t capacity)
{
    uint64_t count = 0;
    for (struct process *p = table; p < table + PROCESSES && count < capacity; p++) {
        if (p->state == UNUSED)
            continue;
        struct process_info info = {p->pid, p->parent == NULL ? 0 : p->parent->pid, p->state,
                                    p->space.pages, {0}};
        memcpy(info.name, p->name, NAME_MAX);
        long error = copy_to_user(buffer + count * sizeof info, &info, sizeof info);
        if (error < 0)
            return error;
        count++;
    }
    return (long)count;
}

void sleep_on(const void *channel)
{
    current->channel = channel;
    set_state(current, SLEEPING);
    schedule();
}

void wake(const void *channel)
{
    for (struct process *p = table; p < table + PROCESSES; p++)
        if (p->state == SLEEPING && p->channel == channel)
            set_state(p, RUNNABLE);
}

/* As sleep_on(), but not longer than to this time. */
void sleep_on_until(const void *channel, uint64_t time)
{
    current->wake_at = time;
    sleep_on(channel);
    current->wake_at = NEVER;
}

void process_sleep_until(uint64_t time)
{
    while (clock_now() < time && !current->killed)
        sleep_on_until(&current->wake_at, time);
}

void processes_wake_at(uint64_t now)
{
    for (struct process *p = table; p < table + PROCESSES; p++)
        if (p->state == SLEEPING && p->wake_at <= now)
            set_state(p, RUNNABLE);
}

uint64_t processes_next_wake(void)
{
    uint64_t next = NEVER;
    for (struct process *p = table; p < table + PROCESSES; p++)
        if (p->state == SLEEPING && p->wake_at < next)
            next = p->wake_at;
    return next;
}

bool process_others_runnable(void)
{
    for (struct process *p = table; p < table + PROCESSES; p++)
        if (p->state == RUNNABLE && p != current)
            return true;
    return false;
}

/* The next runnable process after the current one, which itself comes last. */
static struct process *next_runnable(void)
{
    struct process *first = current == &boot ? table : current + 1;
    for (int i = 0; i < PROCESSES; i++) {
        struct process *p = first + i < table + PROCESSES ? first + i : first + i - PROCESSES;
        if (p->state == RUNNABLE)
            return p;
    }
    return NULL;
}

/* Run another process if there is one; return when it is this one's turn again. */
void schedule(void)
{
    struct process *next;
    while ((next = next_runnable()) == NULL) {
        clock_arm();
        wait_for_interrupt();
        interrupts_poll();
    }
    struct process *previous = current;
    current = next;
    clock_new_slice();
    clock_arm();
    if (next == previous)
        return;
    trap_frame_set(next->frame);
    vm_enter(&next->space);
    switch_context(&previous->context, &next->context);
}
