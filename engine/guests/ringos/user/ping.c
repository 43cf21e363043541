/* Send packets to another machine and say how many came back, and how soon at best. */
#include "lib.h"

#define USUAL 4

/* The station that the text is, four numbers with points between them; -1 if it is none. */
static long station_of(char *text)
{
    long station = 0;
    for (int part = 0; part < 4; part++) {
        char *end = text;
        while (*end != '\0' && *end != '.')
            end++;
        if ((*end == '.') != (part < 3))
            return -1;
        *end = '\0';
        long value = number(text);
        if (value < 0 || value > 255)
            return -1;
        station = station << 8 | value;
        text = end + 1;
    }
    return station;
}

static void print_station(long station)
{
    print("%d.%d.%d.%d", station >> 24 & 255, station >> 16 & 255, station >> 8 & 255, station & 255);
}

int main(char *arguments)
{
    char *name = next_word(&arguments);
    const char *times = next_word(&arguments);
    long own = net_address();
    if (own < 0) {
        print("ping: %s\n", error_text(own));
        return 1;
    }
    if (*name == '\0') {
        print("this is ");
        print_station(own);
        print("\n");
        return 0;
    }
    long station = station_of(name), count = *times == '\0' ? USUAL : number(times);
    if (station < 0 || count < 1) {
        print("usage: ping [STATION [N]], a station being four numbers like 10.0.0.2\n");
        return 2;
    }
    long came = 0, soonest = 0, error = 0;
    for (long i = 0; i < count && error != E(INTERRUPTED); i++) {
        uint64_t word = (uint64_t)i;
        long begin = uptime();
        error = ping((uint64_t)station, &word);
        long took = uptime() - begin;
        if (error < 0 || word != (uint64_t)i)
            continue;
        soonest = came++ == 0 || took < soonest ? took : soonest;
    }
    print_station(station);
    if (came == 0)
        print(": %s\n", error_text(error));
    else
        print(": %d of %d packets came back, the fastest after %d us\n", came, count, soonest);
    return came == 0;
}
