/* What the kernel and its programs agree on: system calls, errors, exit statuses, the process list.
 *
 * A program puts the call's number in a7 and up to three arguments in a0-a2, executes ecall, and
 * finds the result in a0: zero or more is success, less than zero is one of the errors below. */
#pragma once

/* One row per system call: its number and its name. The enumeration, the kernel's dispatch table
 * and the programs' stubs all derive from these rows; the prototypes are in user/lib.h. */
#define SYSTEM_CALLS(ROW) \
    ROW(1, exit) \
    ROW(2, spawn) \
    ROW(3, wait) \
    ROW(4, getpid) \
    ROW(5, yield) \
    ROW(6, sleep) \
    ROW(7, uptime) \
    ROW(8, read) \
    ROW(9, write) \
    ROW(10, sbrk) \
    ROW(11, kill) \
    ROW(12, send) \
    ROW(13, receive) \
    ROW(14, processes) \
    ROW(15, poweroff) \
    ROW(16, reboot) \
    ROW(17, disk_read) \
    ROW(18, disk_write) \
    ROW(19, net_address) \
    ROW(20, ping)

/* One row per error: its name, and what a person is told. */
#define ERRORS(ROW) \
    ROW(UNUSED, "no error") \
    ROW(NO_CALL, "no such system call") \
    ROW(FAULT, "bad address") \
    ROW(NO_PROGRAM, "no such program") \
    ROW(NO_PROCESS, "no such process") \
    ROW(NO_CHILD, "no child to wait for") \
    ROW(NO_MEMORY, "out of memory") \
    ROW(TOO_MANY, "too many processes") \
    ROW(TOO_LONG, "too long") \
    ROW(INVALID, "invalid argument") \
    ROW(NOT_PERMITTED, "not permitted") \
    ROW(INTERRUPTED, "interrupted") \
    ROW(NO_DISK, "no disk") \
    ROW(NO_CARD, "no network card") \
    ROW(NO_ANSWER, "no answer")

#define PROCESSES 16      /* that can exist at one time */
#define NAME_MAX 16       /* bytes of a program's name, with its final zero */
#define ARGUMENTS_MAX 128 /* bytes of a program's arguments, and of a console line, likewise */

#define SPAWN_FOREGROUND 1 /* spawn: hand the console to the child until it exits */
#define WAIT_POLL 1        /* wait: return 0 at once when no child has exited yet */

#define NETWORK 0x0a000000u           /* stations are 10.0.x.y */
#define EVERYBODY (NETWORK | 0xffffu) /* ping: all of them; the first one's answer counts */

#define STATUS_FAULT 128  /* exit status of a process that the kernel ended: 128 + cause */
#define STATUS_KILLED 159 /* exit status of a process ended by ^C or kill */

#ifndef __ASSEMBLER__
#include <stdint.h>

enum {
#define ROW(number, name) SYS_##name = number,
    SYSTEM_CALLS(ROW)
#undef ROW
};

enum {
#define ROW(name, text) NEGATIVE_##name,
    ERRORS(ROW)
#undef ROW
};
#define E(name) (-(long)NEGATIVE_##name)

enum process_state { UNUSED, RUNNABLE, SLEEPING, ZOMBIE };

struct process_info {
    int32_t pid;
    int32_t parent;
    int32_t state; /* enum process_state */
    int32_t pages; /* of physical memory that the process owns */
    char name[NAME_MAX];
};
#endif
