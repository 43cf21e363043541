/* The network: as much of it as it takes to answer a ping, and to send one (RFC 826 ARP, RFC 791 IP, RFC 792 ICMP).
 *
 *      0         6         12     14                      34         42
 *      | to card | of card | ARP  | whose card has that station? or: here      |
 *      | to card | of card | IP   | from station to station | echo    | data, which comes back
 *
 * This station is 10.0.x.y, x and y being the last bytes of its card's address, and 10.0.255.255 are all of them. Whoever
 * is not on the wire is nowhere: there are no routes. A frame that is not for us, or not what it says it is, is nothing. */
#include "kernel.h"

#define CARD 6 /* bytes of a card's address */
#define STATIONS 8

enum { TO = 0, FROM = 6, TYPE = 12, ARP = 14, IP = 14 };
enum { TYPE_IP = 0x0800, TYPE_ARP = 0x0806 };

enum { ARP_OPERATION = ARP + 6, ARP_FROM = ARP + 8, ARP_SENDER = ARP + 14, ARP_TO = ARP + 18, ARP_TARGET = ARP + 24,
       ARP_END = ARP + 28 };
enum { ARP_REQUEST = 1, ARP_REPLY = 2 };
#define ARP_KIND 0x00010800 /* of Ethernet and IP, */
#define ARP_SIZES 0x0604    /* whose addresses have so many bytes */

enum { IP_BYTES = IP + 2, IP_FRAGMENT = IP + 6, IP_LIFE = IP + 8, IP_PROTOCOL = IP + 9, IP_SUM = IP + 10,
       IP_SENDER = IP + 12, IP_TARGET = IP + 16, ECHO = IP + 20 };
enum { IP_VERSION = 0x45, IP_DONT_FRAGMENT = 0x4000, IP_LIVES = 64, ICMP = 1 }; /* a header without options */

enum { ECHO_SUM = ECHO + 2, ECHO_NUMBER = ECHO + 4, ECHO_DATA = ECHO + 8, ECHO_END = ECHO_DATA + 56 };
enum { ECHO_REPLY = 0, ECHO_REQUEST = 8 };

/* Somebody waits for an answer: for the address of a station's card if number is 0, else for this echo's first bytes. It
 * lies on the stack of the process that waits. */
struct wait {
    struct wait *next;
    uint32_t station; /* all of them: whose answer comes first */
    uint32_t number;
    void *answer;
    uint64_t bytes;
    bool done;
};

static bool up;
static uint8_t card[CARD];
static uint32_t own;
static struct {
    uint32_t station; /* 0: nobody */
    uint8_t card[CARD];
} known[STATIONS];
static unsigned next_known;
static uint32_t last_number;
static struct wait *waiting;

static uint32_t get(const uint8_t *at, int bytes)
{
    uint32_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | *at++;
    return value;
}

static void put(uint8_t *at, int bytes, uint32_t value)
{
    for (; bytes-- > 0; value >>= 8)
        at[bytes] = (uint8_t)value;
}

/* The Internet checksum (RFC 1071): 0 over anything that carries its own. */
static uint32_t checksum(const uint8_t *at, uint64_t bytes)
{
    uint32_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++)
        sum += i % 2 == 0 ? (uint32_t)at[i] << 8 : at[i];
    while (sum > 0xffff)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static void sign(uint8_t *sum, const uint8_t *start, uint64_t bytes)
{
    put(sum, 2, 0);
    put(sum, 2, checksum(start, bytes));
}

void net_init(void)
{
    up = net_begin(card);
    own = NETWORK | get(&card[CARD - 2], 2);
}

static void send(uint8_t *frame, const uint8_t *to, uint32_t type, uint64_t bytes)
{
    memcpy(&frame[TO], to, CARD);
    memcpy(&frame[FROM], card, CARD);
    put(&frame[TYPE], 2, type);
    net_send(frame, bytes);
}

static void send_arp(uint8_t *frame, uint32_t operation, const uint8_t *to, uint32_t station)
{
    put(&frame[ARP], 4, ARP_KIND);
    put(&frame[ARP + 4], 2, ARP_SIZES);
    put(&frame[ARP_OPERATION], 2, operation);
    memcpy(&frame[ARP_FROM], card, CARD);
    put(&frame[ARP_SENDER], 4, own);
    memcpy(&frame[ARP_TO], to, CARD);
    put(&frame[ARP_TARGET], 4, station);
    send(frame, to, TYPE_ARP, ARP_END);
}

/* The packet's own bytes, from its number on, are in the frame already. */
static void send_echo(uint8_t *frame, uint8_t type, const uint8_t *to, uint32_t station, uint64_t bytes)
{
    memset(&frame[IP], 0, ECHO - IP);
    frame[IP] = IP_VERSION;
    put(&frame[IP_BYTES], 2, (uint32_t)bytes - IP);
    frame[IP_LIFE] = IP_LIVES;
    frame[IP_PROTOCOL] = ICMP;
    put(&frame[IP_SENDER], 4, own);
    put(&frame[IP_TARGET], 4, station);
    sign(&frame[IP_SUM], &frame[IP], ECHO - IP);
    frame[ECHO] = type;
    frame[ECHO + 1] = 0;
    sign(&frame[ECHO_SUM], &frame[ECHO], bytes - ECHO);
    send(frame, to, TYPE_IP, bytes);
}

static void answered(uint32_t station, uint32_t number, const uint8_t *answer, uint64_t bytes)
{
    for (struct wait *w = waiting; w != NULL; w = w->next) {
        bool asked = w->station == station || w->station == EVERYBODY;
        if (asked && !w->done && w->number == number && bytes >= w->bytes) {
            w->station = station;
            memcpy(w->answer, answer, w->bytes);
            w->done = true;
            wake(w);
        }
    }
}

static const uint8_t *card_of(uint32_t station)
{
    for (int i = 0; i < STATIONS; i++)
        if (known[i].station == station)
            return known[i].card;
    return NULL;
}

static void arp_arrived(uint8_t *frame, uint64_t bytes)
{
    if (bytes < ARP_END || get(&frame[ARP], 4) != ARP_KIND || get(&frame[ARP + 4], 2) != ARP_SIZES
        || get(&frame[ARP_TARGET], 4) != own)
        return;
    uint32_t operation = get(&frame[ARP_OPERATION], 2), sender = get(&frame[ARP_SENDER], 4);
    uint8_t theirs[CARD];
    memcpy(theirs, &frame[ARP_FROM], CARD);
    if (operation == ARP_REQUEST)
        send_arp(frame, ARP_REPLY, theirs, sender);
    else if (operation == ARP_REPLY)
        answered(sender, 0, theirs, CARD);
}

static void ip_arrived(uint8_t *frame, uint64_t bytes)
{
    if (bytes < ECHO_DATA || frame[IP] != IP_VERSION || frame[IP_PROTOCOL] != ICMP
        || get(&frame[IP_FRAGMENT], 2) & ~(uint32_t)IP_DONT_FRAGMENT || checksum(&frame[IP], ECHO - IP) != 0)
        return;
    uint32_t sender = get(&frame[IP_SENDER], 4), target = get(&frame[IP_TARGET], 4);
    uint64_t end = IP + get(&frame[IP_BYTES], 2);
    if ((target != own && target != EVERYBODY) || end < ECHO_DATA || end > bytes
        || checksum(&frame[ECHO], end - ECHO) != 0)
        return;
    uint8_t theirs[CARD];
    memcpy(theirs, &frame[FROM], CARD);
    if (frame[ECHO] == ECHO_REQUEST)
        send_echo(frame, ECHO_REPLY, theirs, sender, end);
    else if (frame[ECHO] == ECHO_REPLY)
        answered(sender, get(&frame[ECHO_NUMBER], 4), &frame[ECHO_DATA], end - ECHO_DATA);
}

/* Look at all that has arrived. */
void net_arrived(void)
{
    uint64_t bytes;
    for (uint8_t *frame; (frame = net_take(&bytes)) != NULL; net_give_back()) {
        if (bytes >= ARP && get(&frame[TYPE], 2) == TYPE_ARP)
            arp_arrived(frame, bytes);
        else if (bytes >= IP && get(&frame[TYPE], 2) == TYPE_IP)
            ip_arrived(frame, bytes);
    }
}

/* What was asked has been sent. Nobody waits longer than a second. */
static long wait_for(struct wait *wait)
{
    uint64_t deadline = clock_now() + machine.timebase_hz;
    wait->next = waiting;
    waiting = wait;
    while (!wait->done && !current->killed && clock_now() < deadline)
        sleep_on_until(wait, deadline);
    struct wait **link = &waiting;
    while (*link != wait)
        link = &(*link)->next;
    *link = wait->next;
    return wait->done ? 0 : current->killed ? E(INTERRUPTED) : E(NO_ANSWER);
}

long net_address(void)
{
    return up ? (long)own : E(NO_CARD);
}

/* The address of a station's card: known, or asked for with a frame. */
static long find(uint8_t *frame, uint32_t station, uint8_t *theirs)
{
    static const uint8_t all[CARD] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const uint8_t *found = station == EVERYBODY ? all : card_of(station);
    if (found != NULL) {
        memcpy(theirs, found, CARD);
        return 0;
    }
    struct wait wait = {.station = station, .answer = theirs, .bytes = CARD};
    send_arp(frame, ARP_REQUEST, all, station);
    long error = wait_for(&wait);
    if (error < 0)
        return error;
    unsigned at = next_known++ % STATIONS;
    known[at].station = station;
    memcpy(known[at].card, theirs, CARD);
    return 0;
}

/* Send a word to a station, and put what comes back in its place. The result is who answered. */
long net_ping(uint64_t to, uint64_t *word)
{
    uint32_t station = (uint32_t)to;
    uint8_t frame[ECHO_END] = {0}, theirs[CARD];
    if (!up)
        return E(NO_CARD);
    if (station == 0 || station != to)
        return E(INVALID);
    if (station == own)
        return own;
    long error = find(frame, station, theirs);
    if (error < 0)
        return error;
    if (++last_number == 0)
        last_number++;
    struct wait wait = {.station = station, .number = last_number, .answer = word, .bytes = sizeof *word};
    put(&frame[ECHO_NUMBER], 4, last_number);
    memcpy(&frame[ECHO_DATA], word, sizeof *word);
    send_echo(frame, ECHO_REQUEST, theirs, station, ECHO_END);
    error = wait_for(&wait);
    return error < 0 ? error : (long)wait.station;
}
