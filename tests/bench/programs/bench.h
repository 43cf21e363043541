/* Shared by the bench programs: one line of output, which both sides must agree on. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

static inline void report(u64 value)
{
    volatile u8 *uart = (u8 *)0x10000000;
    for (int shift = 60; shift >= 0; shift -= 4)
        *uart = "0123456789abcdef"[value >> shift & 15];
    *uart = '\n';
}
