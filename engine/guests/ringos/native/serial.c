/* The serial line of the console: a 16550 UART (PC16550D data sheet). */
#include "../kernel.h"

#define UART ((volatile uint8_t *)0x10000000)
enum { RBR = 0, THR = 0, IER = 1, FCR = 2, LCR = 3, LSR = 5 };
#define IER_RECEIVED 0x01
#define FCR_ENABLE_AND_CLEAR 0x07
#define LCR_8_BITS 0x03
#define LSR_RECEIVED 0x01
#define LSR_THR_EMPTY 0x20

void serial_init(void)
{
    UART[LCR] = LCR_8_BITS;
    UART[FCR] = FCR_ENABLE_AND_CLEAR;
    UART[IER] = IER_RECEIVED;
}

void serial_put(char c)
{
    while (!(UART[LSR] & LSR_THR_EMPTY))
        continue;
    UART[THR] = (uint8_t)c;
}

/* False: no character has come that was not taken yet. */
bool serial_take(char *c)
{
    if (!(UART[LSR] & LSR_RECEIVED))
        return false;
    *c = (char)UART[RBR];
    return true;
}
