/* What the kernel wants to know of its machine, out of the flattened device tree
 * (Devicetree Specification 0.4, chapter 5): where RAM is, how fast time runs, the boot arguments.
 *
 *      header | ... | structure: BEGIN_NODE name  PROP length name-offset value  END_NODE ... | strings
 *
 * Read before memory is handed out, so that the tree's own pages need no protection. */
#include "kernel.h"

enum { BEGIN_NODE = 1, END_NODE, PROP, NOP, END = 9 };

struct machine machine = {.timebase_hz = 10000000};

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t big_endian64(const uint8_t *p)
{
    return (uint64_t)big_endian(p) << 32 | big_endian(p + 4);
}

/* One property of a node directly below the root. RAM is the range that holds the kernel. */
static void property(const char *node, const char *name, const uint8_t *value, uint32_t length)
{
    if (starts_with(node, "memory@") && same_text(name, "reg")) {
        for (; length >= 16; length -= 16, value += 16) {
            uint64_t start = big_endian64(value), size = big_endian64(value + 8);
            if (start <= (uint64_t)kernel_start && (uint64_t)kernel_start < start + size) {
                machine.memory_start = start;
                machine.memory_end = start + size;
            }
        }
    } else if (same_text(node, "cpus") && same_text(name, "timebase-frequency") && length == 4) {
        machine.timebase_hz = big_endian(value);
    } else if (same_text(node, "chosen") && same_text(name, "bootargs")) {
        uint32_t bytes = length < ARGUMENTS_MAX ? length : ARGUMENTS_MAX - 1;
        if (length > ARGUMENTS_MAX)
            print("ringos: boot arguments cut to %d characters\n", (long)bytes);
        memcpy(machine.arguments, value, bytes);
        machine.arguments[bytes] = '\0';
    }
}

void fdt_read(const void *tree)
{
    const uint8_t *header = tree;
    if (header == NULL || big_endian(header) != 0xd00dfeed)
        panic("no device tree in a1");
    const uint8_t *at = header + big_endian(header + 8);
    const char *strings = (const char *)header + big_endian(header + 12);
    const char *node = "";
    int depth = 0;
    for (;;) {
        uint32_t token = big_endian(at);
        at += 4;
        if (token == BEGIN_NODE) {
            if (++depth == 2)
                node = (const char *)at;
            at += ROUND_UP(strlen((const char *)at) + 1, 4);
        } else if (token == END_NODE) {
            depth--;
        } else if (token == PROP) {
            uint32_t length = big_endian(at), name = big_endian(at + 4);
            if (depth == 2)
                property(node, strings + name, at + 8, length);
            at += 8 + ROUND_UP(length, 4);
        } else if (token != NOP) {
            break;
        }
    }
    if (machine.memory_end == 0)
        panic("the device tree describes no memory around the kernel");
}
