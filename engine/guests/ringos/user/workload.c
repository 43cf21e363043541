/* The workloads that ringos is measured with (workload.h). */
#include "workload.h"

#define PAGE 4096
#define BATCH 16 /* pages that the pagefault workload holds at a time */
#define COLUMNS 64
#define TICK_US 100
#define DISK_BLOCKS 16 /* that the disk workload uses, in turn */

static _Noreturn void give_up(const char *what, long error)
{
    print("work: %s: %s\n", what, error_text(error));
    exit(1);
}

/* One step of a checksum: a 64-bit linear congruential generator (Knuth, MMIX). */
static uint64_t mix(uint64_t checksum, uint64_t value)
{
    return (checksum ^ value) * 6364136223846793005u + 1442695040888963407u;
}

/* Arithmetic only: no trap but the timer's. */
static uint64_t compute(uint64_t count)
{
    uint64_t checksum = 1;
    for (uint64_t i = 0; i < count; i++)
        checksum = mix(checksum, i);
    return checksum;
}

/* The shortest system call. */
static uint64_t call(uint64_t count)
{
    long pid = getpid();
    uint64_t checksum = 1;
    for (uint64_t i = 0; i < count; i++)
        checksum = mix(checksum, getpid() == pid);
    return checksum;
}

/* Touch pages for the first time, give them back, and touch them for the first time again. */
static uint64_t fault(uint64_t count)
{
    uint64_t checksum = 1;
    for (uint64_t i = 0; i < count;) {
        uint64_t pages = count - i < BATCH ? count - i : BATCH;
        long heap = sbrk((long)pages * PAGE);
        if (heap < 0)
            give_up("sbrk", heap);
        for (uint64_t page = 0; page < pages; page++, i++) {
            volatile uint64_t *word = (uint64_t *)(heap + (long)page * PAGE);
            checksum = mix(checksum, *word);
            *word = checksum;
        }
        sbrk(-(long)pages * PAGE);
    }
    return checksum;
}

/* A word to another process and back: two switches of address space each. */
static uint64_t switch_processes(uint64_t count)
{
    long other = spawn("work", "answer", 0);
    if (other < 0)
        give_up("spawn", other);
    uint64_t checksum = 1;
    for (uint64_t i = 0; i < count; i++) {
        long error = send(other, i);
        uint64_t word = 0;
        if (error == 0)
            error = receive(&word);
        if (error < 0)
            give_up("message", error);
        checksum = mix(checksum, word);
    }
    kill(other);
    wait(NULL, 0);
    return checksum;
}

/* Console output, a character per system call. */
static uint64_t output(uint64_t count)
{
    uint64_t checksum = 1;
    for (uint64_t i = 0; i < count; i++) {
        char c = (char)('a' + i % 26);
        checksum = mix(checksum, (uint64_t)write(&c, 1) + (uint64_t)c);
        if (i % COLUMNS == COLUMNS - 1 || i + 1 == count)
            write("\n", 1);
    }
    return checksum;
}

/* Sleep for the length of a time slice: set the timer, wait for its interrupt, wake up. */
static uint64_t tick(uint64_t count)
{
    uint64_t checksum = 1;
    for (uint64_t i = 0; i < count; i++)
        checksum = mix(checksum, sleep(TICK_US) == 0);
    return checksum;
}

/* A block of 4 KiB to the disk and back. */
static uint64_t disk(uint64_t count)
{
    uint64_t checksum = 1;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t block[PAGE / 8];
        for (unsigned word = 0; word < PAGE / 8; word += 64)
            block[word] = mix(i, word + 1);
        long error = disk_write(i % DISK_BLOCKS, block);
        block[0] = 0;
        if (error == 0)
            error = disk_read(i % DISK_BLOCKS, block);
        if (error < 0)
            give_up("disk", error);
        checksum = mix(checksum, block[0]);
    }
    return checksum;
}

/* A packet to another machine and back: the one that answers first when all are asked. With one packet more than count,
 * which finds its card. */
static uint64_t packet(uint64_t count)
{
    uint64_t checksum = 1, word = 0;
    long station = ping(EVERYBODY, &word);
    for (uint64_t i = 0; i <= count && station >= 0; i++) {
        word = i;
        station = ping((uint64_t)station, &word);
        checksum = mix(checksum, word);
    }
    if (station < 0)
        give_up("a packet to another ringos", station);
    return checksum;
}

const struct workload workloads[] = {
    [COMPUTE] = {"compute", "steps", compute},
    [SYSCALL] = {"syscall", "system calls", call},
    [PAGEFAULT] = {"pagefault", "page faults", fault},
    [SWITCH] = {"switch", "messages there and back", switch_processes},
    [IO] = {"io", "characters", output},
    [TIMER] = {"timer", "sleeps of 100 microseconds", tick},
    [DISK] = {"disk", "blocks of 4 KiB there and back", disk},
    [PACKET] = {"packet", "packets there and back", packet},
};

_Noreturn void answer(void)
{
    for (;;) {
        uint64_t word;
        long sender = receive(&word);
        if (sender < 0 || send(sender, word + 1) < 0)
            exit(1);
    }
}
