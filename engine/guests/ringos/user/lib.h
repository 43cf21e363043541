/* What every program can use: the system calls (calls.S) and a few helpers (lib.c).
 *
 * A result below zero is an error; error_text() says which. */
#pragma once
#include "../common/abi.h"
#include "../common/format.h"

_Noreturn void exit(int status);
long spawn(const char *program, const char *arguments, int flags);
long wait(int *status, int flags);
long getpid(void);
long yield(void);
long sleep(uint64_t microseconds);
long uptime(void); /* in microseconds */
long read(void *buffer, size_t capacity);
long write(const void *buffer, size_t bytes);
long sbrk(long bytes); /* where the heap ended before */
long kill(long pid);
long send(long pid, uint64_t word);
long receive(uint64_t *word); /* the sender's pid */
long processes(struct process_info *buffer, size_t capacity);
long poweroff(long status);
long reboot(void);
long disk_read(uint64_t block, void *buffer); /* of 4096 bytes */
long disk_write(uint64_t block, const void *buffer);
long net_address(void); /* of this station: 10.0.x.y as one number */
long ping(uint64_t station, uint64_t *word); /* there and back; the station that answered */

/* A system call that does nothing, for whoever measures (calls.S). */
void mark(void);

int main(char *arguments);

/* Print one line or a part of one, in one write. */
void print(const char *format, ...);

const char *error_text(long error);

/* Cut the next word off the text: *text moves behind it. The word is empty at the end. */
char *next_word(char **text);

/* The number that the text is, in decimal; -1 if it is none, or has more than 18 digits. */
long number(const char *text);
