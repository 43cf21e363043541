/* What programs can ask for: one function and one row (common/abi.h) each.
 *
 * Arguments are the program's a0, a1, a2; nothing of them is trusted. A pointer is only ever used
 * through copy_from_user, copy_to_user and copy_text_from_user, which refuse what the program itself
 * could not have accessed. */
#include "kernel.h"

#define CHUNK 128 /* bytes of output that the kernel holds at a time */

static long sys_exit(const uint64_t *a)
{
    process_exit((int)(a[0] & 0xff));
}

static long sys_spawn(const uint64_t *a)
{
    char name[NAME_MAX], arguments[ARGUMENTS_MAX];
    long error = copy_text_from_user(name, a[0], sizeof name);
    if (error == E(TOO_LONG))
        return E(NO_PROGRAM);
    if (error == 0)
        error = copy_text_from_user(arguments, a[1], sizeof arguments);
    if (error < 0)
        return error;
    return process_spawn(name, arguments, current, a[2] & SPAWN_FOREGROUND);
}

static long sys_wait(const uint64_t *a)
{
    int status;
    long pid = process_wait(&status, a[1] & WAIT_POLL);
    long error = pid > 0 && a[0] != 0 ? copy_to_user(a[0], &status, sizeof status) : 0;
    return error < 0 ? error : pid;
}

static long sys_getpid(const uint64_t *a)
{
    (void)a;
    return current->pid;
}

static long sys_yield(const uint64_t *a)
{
    (void)a;
    schedule();
    return 0;
}

static long sys_sleep(const uint64_t *a)
{
    const uint64_t longest_us = 1UL << 36;
    uint64_t microseconds = a[0] < longest_us ? a[0] : longest_us;
    process_sleep_until(clock_now() + microseconds * machine.timebase_hz / 1000000);
    return 0;
}

static long sys_uptime(const uint64_t *a)
{
    (void)a;
    return (long)(clock_now() * 1000000 / machine.timebase_hz);
}

static long sys_read(const uint64_t *a)
{
    return console_read(a[0], a[1]);
}

static long sys_write(const uint64_t *a)
{
    char chunk[CHUNK];
    for (uint64_t done = 0; done < a[1];) {
        uint64_t bytes = a[1] - done < sizeof chunk ? a[1] - done : sizeof chunk;
        long error = copy_from_user(chunk, a[0] + done, bytes);
        if (error < 0)
            return error;
        for (uint64_t i = 0; i < bytes; i++)
            console_put(chunk[i]);
        done += bytes;
    }
    return (long)a[1];
}

static long sys_sbrk(const uint64_t *a)
{
    return vm_sbrk(&current->space, (int64_t)a[0]);
}

static long sys_kill(const uint64_t *a)
{
    return process_kill((long)a[0]);
}

static long sys_send(const uint64_t *a)
{
    return process_send((long)a[0], a[1]);
}

static long sys_receive(const uint64_t *a)
{
    uint64_t word;
    long sender = process_receive(&word);
    long error = sender > 0 ? copy_to_user(a[0], &word, sizeof word) : 0;
    return error < 0 ? error : sender;
}

static long sys_processes(const uint64_t *a)
{
    return process_list(a[0], a[1]);
}

static long sys_poweroff(const uint64_t *a)
{
    if (a[0] > 0xff)
        return E(INVALID);
    machine_off((int)a[0]);
}

static long sys_reboot(const uint64_t *a)
{
    (void)a;
    machine_reboot();
}

static long sys_disk_read(const uint64_t *a)
{
    return disk_read(a[0], a[1]);
}

static long sys_disk_write(const uint64_t *a)
{
    return disk_write(a[0], a[1]);
}

static long sys_net_address(const uint64_t *a)
{
    (void)a;
    return net_address();
}

static long sys_ping(const uint64_t *a)
{
    uint64_t word;
    long error = copy_from_user(&word, a[1], sizeof word);
    if (error < 0)
        return error;
    long station = net_ping(a[0], &word);
    error = station >= 0 ? copy_to_user(a[1], &word, sizeof word) : 0;
    return error < 0 ? error : station;
}

static long (*const system_calls[])(const uint64_t *) = {
#define ROW(number, name) [number] = sys_##name,
    SYSTEM_CALLS(ROW)
#undef ROW
};

long syscall(const struct frame *frame)
{
    uint64_t number = frame->a7;
    if (number >= sizeof system_calls / sizeof *system_calls || system_calls[number] == NULL)
        return E(NO_CALL);
    return system_calls[number](&frame->a0);
}
