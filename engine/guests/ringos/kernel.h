/* Everything one file of the kernel uses of another, file by file.
 *
 *      programs      sh  ps  work  ...              user mode, 0x40000000-0x7fffffff
 *      ------------------------ ecall, faults, interrupts --------------------------
 *      trap.c        switch.S                       why the kernel was entered; from stack to stack
 *      syscall.c     proc.c     clock.c             what programs ask for; who runs, and when
 *      vm.c          memory.c   program.c           address spaces, pages, what to put in them
 *      console.c     disk.c     net.c               lines of text, blocks, packets
 *      fdt.c                                        the machine's description
 *      ------------- machine.h, in native/ and again in pv/ ------------------------
 *      trapvec.S     interrupts.c                   into the kernel and out again
 *      serial.c      disk.c     net.c               bytes of text, sectors, frames
 *      firmware.c                                   the timer, the machine's end
 *
 * The files below the second line are there twice: native/ for a machine that the kernel has to itself
 * or believes so, pv/ for one that a hypervisor gives it and that it knows to be given. The rest is
 * compiled for both without a difference.
 *
 * The kernel runs with interrupts off and is never preempted: it gives up the hart only in
 * schedule(), so no structure needs a lock. One hart runs it; the others stay stopped. */
#pragma once
#include "common/abi.h"
#include "common/format.h"
#include "riscv.h"

#define NEVER UINT64_MAX

/* A process's registers in user mode, in the order of their numbers; pc takes the place of x0. */
struct frame {
    uint64_t pc, ra, sp, gp, tp, t0, t1, t2, s0, s1, a0, a1, a2, a3, a4, a5, a6, a7;
    uint64_t s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, t3, t4, t5, t6;
};

/* What a C function expects to find again after calling another. */
struct context {
    uint64_t ra, sp, s[12];
};

/* Pages of one purpose in an address space, filled when they are first touched. */
struct region {
    uint64_t start, end; /* multiples of PAGE_SIZE */
    uint64_t access;     /* PTE_R, PTE_W, PTE_X */
    const uint8_t *image; /* what the first image_bytes hold; zeros follow */
    uint64_t image_bytes;
};

enum { TEXT, DATA, STACK, HEAP, REGIONS };

struct space {
    pte_t *root;
    uint64_t asid;
    struct region regions[REGIONS];
    uint64_t heap_end; /* to the byte, as sbrk() counts */
    int pages;
};

struct process {
    int pid;
    enum process_state state;
    struct process *parent;
    char name[NAME_MAX];
    struct space space;
    uint8_t *kernel_stack; /* one page; the frame is at its top */
    struct frame *frame;
    struct context context;
    const void *channel; /* what it sleeps on */
    uint64_t wake_at;    /* for sleep(): time in ticks, or NEVER */
    bool killed;         /* ends on its way back to user mode */
    bool exiting;        /* has ended, but waits for its children to end too */
    int status;
    struct {
        bool full;
        int sender;
        uint64_t word;
    } mailbox;
};

/* console.c */
void console_put(char c);
void console_interrupt(void);
long console_read(uint64_t buffer, uint64_t capacity);
void console_hand_over(const struct process *from, const struct process *to);
void print(const char *format, ...);

/* fdt.c */
struct machine {
    uint64_t memory_start, memory_end;
    uint64_t timebase_hz;
    char arguments[ARGUMENTS_MAX];
};
extern struct machine machine;
void fdt_read(const void *tree);

/* memory.c */
void memory_init(uint64_t start, uint64_t end);
void *page_take(void);
void *page_alloc(void);
void page_free(void *page);

/* vm.c */
extern char kernel_start[], text_end[], rodata_end[], kernel_end[];
#define USER_START 0x40000000UL /* programs are linked here: user/user.ld */
#define USER_STACK_TOP 0x40200000UL
#define USER_STACK_SIZE 0x10000UL
#define USER_HEAP_END 0x48000000UL
void vm_init(uint64_t memory_end);
bool vm_create(struct space *space, uint64_t asid);
void vm_destroy(struct space *space);
void vm_enter(const struct space *space);
long vm_fault(struct space *space, uint64_t address, uint64_t access);
long vm_sbrk(struct space *space, int64_t bytes);
long copy_from_user(void *to, uint64_t from, uint64_t bytes);
long copy_to_user(uint64_t to, const void *from, uint64_t bytes);
long copy_text_from_user(char *to, uint64_t from, uint64_t capacity);
bool vm_put_arguments(struct space *space, const char *arguments);

/* program.c */
bool program_load(const char *name, struct space *space, uint64_t *entry);

/* proc.c */
extern struct process *current;
long process_spawn(const char *name, const char *arguments, struct process *parent, bool foreground);
_Noreturn void process_exit(int status);
long process_wait(int *status, bool poll);
long process_kill(long pid);
long process_send(long pid, uint64_t word);
long process_receive(uint64_t *word);
long process_list(uint64_t buffer, uint64_t capacity);
void process_sleep_until(uint64_t time);
void processes_wake_at(uint64_t now);
uint64_t processes_next_wake(void);
bool process_others_runnable(void);
void sleep_on(const void *channel);
void sleep_on_until(const void *channel, uint64_t time);
void wake(const void *channel);
void schedule(void);

/* clock.c */
uint64_t clock_now(void);
void clock_stale(void);
void clock_new_slice(void);
void clock_arm(void);
void clock_interrupt(void);

/* trap.c, switch.S */
void trap(struct frame *frame);
_Noreturn void panic(const char *why);
void switch_context(struct context *from, const struct context *to);

/* trapvec.S */
void trap_entry(void);
void trap_return(void);

/* interrupts.c */
void traps_init(uint64_t hart);
void interrupts_serve(uint64_t cause);
void interrupts_poll(void);

/* serial.c */
void serial_init(void);
void serial_put(char c);
bool serial_take(char *c);

/* firmware.c */
void timer_set(uint64_t time);
_Noreturn void machine_off(int status);
_Noreturn void machine_reboot(void);
_Noreturn void machine_failed(void);

/* disk.c: a block is a page */
long disk_read(uint64_t block, uint64_t buffer);
long disk_write(uint64_t block, uint64_t buffer);

/* native/disk.c, pv/disk.c: how many sectors of 512 bytes there are, 0 without a disk; move one page */
uint64_t disk_begin(void);
bool disk_transfer(uint64_t sector, void *page, bool write);

/* native/balloon.c, pv/balloon.c: give pages away when the host asks; take some back if there are */
void balloon_init(void);
bool balloon_relieve(void);

/* net.c */
void net_init(void);
void net_arrived(void);
long net_address(void);
long net_ping(uint64_t to, uint64_t *word);

/* native/net.c, pv/net.c: is there a card, and its address of six bytes; send a frame; the one that arrived first, NULL
 * if none has, to be given back before the next is taken */
bool net_begin(uint8_t *address);
void net_send(const void *frame, uint64_t bytes);
void *net_take(uint64_t *bytes);
void net_give_back(void);

/* syscall.c */
long syscall(const struct frame *frame);

#include "machine.h"
