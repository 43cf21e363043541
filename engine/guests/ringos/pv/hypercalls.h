/* Made from engine/hypervisor/hypercalls.py, which says what all of this means:
 *     python -m engine.hypervisor.hypercalls > engine/guests/ringos/pv/hypercalls.h */
#pragma once

#define PV_EXTENSION 0x08005056
#define PV_VERSION 1
#define PV_BATCH 64
#define PV_NOTE_TYPE 1

#define PV_MULTICALL 0 /* calls, count */
#define PV_RETURN 1 /* calls, count */
#define PV_SHARE 2 /* page */
#define PV_SET_TRAP_ENTRY 3 /* pc */
#define PV_PIN 4 /* root */
#define PV_UNPIN 5 /* root */
#define PV_SET_SPACE 6 /* root */
#define PV_SET_ENTRY 7 /* entry, value */
#define PV_FLUSH 8 /* page */
#define PV_SET_TIMER 9 /* time */
#define PV_BLOCK 10 /* - */
#define PV_YIELD 11 /* - */
#define PV_DELIVER 12 /* - */
#define PV_CONNECT 13 /* device, page */
#define PV_NOTIFY 14 /* device */
#define PV_CONSOLE_WRITE 15 /* address, bytes */
#define PV_SHUTDOWN 16 /* kind, status */

#define PV_EVENT_TIMER 0
#define PV_EVENT_CONSOLE 1
#define PV_EVENT_BLOCK 2
#define PV_EVENT_NET 3

#define PV_DEVICE_CONSOLE 0
#define PV_DEVICE_BLOCK 1
#define PV_DEVICE_NET_SEND 2
#define PV_DEVICE_NET_RECEIVE 3

/* Operations of the disk's ring, and what a grant allows. */
#define PV_BLOCK_READ 0
#define PV_BLOCK_WRITE 1
#define PV_BLOCK_FLUSH 2
#define PV_GRANT_READABLE 1
#define PV_GRANT_WRITABLE 2

/* Places in the shared page, for the assembler. */
#define PV_SHARED_STACK 0
#define PV_SHARED_PC 8
#define PV_SHARED_SP 16
#define PV_SHARED_A0 24
#define PV_SHARED_A1 32
#define PV_SHARED_A6 40
#define PV_SHARED_A7 48
#define PV_SHARED_CAUSE 56
#define PV_SHARED_VALUE 64
#define PV_SHARED_PRIVILEGE 72
#define PV_SHARED_PREVIOUS 80
#define PV_SHARED_UPCALLS_OFF 88
#define PV_SHARED_PENDING 96
#define PV_SHARED_MASKED 104
#define PV_SHARED_TIME_VERSION 112
#define PV_SHARED_TIME_OFFSET 120

#ifndef __ASSEMBLER__
#include <stdint.h>

struct pv_call {
    uint64_t number, argument0, argument1;
    int64_t error;
};

struct pv_shared {
    uint64_t stack;         /* guest: sp at the next trap */
    uint64_t pc;            /* of the trapped code; where to go on */
    uint64_t sp;            /* likewise */
    uint64_t a0;            /* guest: of the code to go on with */
    uint64_t a1;            /* likewise */
    uint64_t a6;            /* likewise */
    uint64_t a7;            /* likewise */
    uint64_t cause;         /* hypervisor: scause of the trap */
    uint64_t value;         /* hypervisor: stval of the trap */
    uint64_t privilege;     /* of the trapped code: 0 user, 1 kernel; of the code to go on with */
    uint64_t previous;      /* upcalls_off before the trap; after the return */
    uint64_t upcalls_off;   /* not 0: events stay pending */
    uint64_t pending;       /* events, by their bits */
    uint64_t masked;        /* guest: events that do not count */
    uint64_t time_version;  /* hypervisor: grows with each change of time_offset */
    uint64_t time_offset;   /* hypervisor: what the time counter is to be added to, in ticks */
    uint64_t reserved[240];
    uint64_t grants[256]; /* pages that back ends may read (bit 0) and write (bit 1) */
};

struct pv_console {
    uint64_t out_produced, out_consumed, in_produced, in_consumed;
    char in[1024], out[2048];
};

struct pv_request {
    uint64_t operation, place, buffer, bytes;
};

struct pv_ring {
    uint64_t produced, answered, reserved[6];
    struct pv_request slots[64];
};
#endif
