/* What CoreMark is made of: a linked list that is searched and sorted, a matrix, a state machine over text, and a CRC
   over all results; calls, branches that are hard to foresee, small data. */
#include "bench.h"

#define NODES 128
#define SIZE 24

struct node {
    struct node *next;
    int value;
};
static struct node nodes[NODES];
static int a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];
static const char text[] = "5012,1234,-874,+122,35.54400,.1234500,-110.700,5.500e+3,-.123e-2,T0.3e-1F,-T.T++Tq,1T3.4e4z";

__attribute__((noinline)) static u16 crc(u16 sum, u32 value)
{
    for (int bit = 0; bit < 32; bit++) {
        sum = (sum ^ value) & 1 ? sum >> 1 ^ 0xa001 : sum >> 1;
        value >>= 1;
    }
    return sum;
}

__attribute__((noinline)) static struct node *sort(struct node *list, int bit)
{
    struct node *low = 0, *high = 0, **low_end = &low, **high_end = &high;
    for (; list; list = list->next)
        if (list->value >> bit & 1)
            *high_end = list, high_end = &list->next;
        else
            *low_end = list, low_end = &list->next;
    *low_end = high;
    *high_end = 0;
    return low;
}

__attribute__((noinline)) static struct node *find(struct node *list, int value)
{
    while (list && list->value != value)
        list = list->next;
    return list;
}

__attribute__((noinline)) static u32 multiply(int factor)
{
    u32 sum = 0;
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            int cell = 0;
            for (int k = 0; k < SIZE; k++)
                cell += a[i][k] * b[k][j];
            c[i][j] = cell >> 2 & factor;
            sum += c[i][j];
        }
    return sum;
}

__attribute__((noinline)) static u32 scan(const char *at, u32 counts[8])
{
    enum { START, SIGN, WHOLE, POINT, FRACTION, EXPONENT, DONE, WRONG } state = START;
    for (; *at; at++) {
        char next = *at;
        if (next == ',') {
            counts[state]++;
            state = START;
            continue;
        }
        switch (state) {
        case START: state = next == '+' || next == '-' ? SIGN : next == '.' ? POINT : next >= '0' && next <= '9' ? WHOLE : WRONG; break;
        case SIGN: state = next == '.' ? POINT : next >= '0' && next <= '9' ? WHOLE : WRONG; break;
        case WHOLE: state = next == '.' ? FRACTION : next == 'e' ? EXPONENT : next >= '0' && next <= '9' ? WHOLE : WRONG; break;
        case POINT: state = next >= '0' && next <= '9' ? FRACTION : WRONG; break;
        case FRACTION: state = next == 'e' ? EXPONENT : next >= '0' && next <= '9' ? FRACTION : WRONG; break;
        case EXPONENT: state = next == '+' || next == '-' ? DONE : WRONG; break;
        case DONE: state = next >= '0' && next <= '9' ? DONE : WRONG; break;
        default: break;
        }
    }
    return counts[WRONG] ^ counts[DONE] << 8 ^ counts[FRACTION] << 16;
}

int main(void)
{
    u16 sum = 0;
    u32 seed = 1, counts[8] = {0};
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++)
            a[i][j] = i * j + 1, b[i][j] = i - j;
    for (u64 round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < NODES; i++) {
            seed = seed * 1103515245 + 12345;
            nodes[i].value = seed >> 16 & 255;
            nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : 0;
        }
        struct node *list = nodes;
        for (int bit = 0; bit < 8; bit++)
            list = sort(list, bit);
        for (int value = 0; value < 32; value++) {
            struct node *found = find(list, value * 8);
            sum = crc(sum, found ? found->value : value);
        }
        sum = crc(sum, multiply(round & 0xff));
        sum = crc(sum, scan(text, counts));
    }
    report(sum);
    return 0;
}
