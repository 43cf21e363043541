/* The console: the editing of a line before anybody reads it.
 *
 *      keys -> serial line -> interrupt -> | read ... committed | committed ... edited |  ring
 *                                   what read() gets       what can still be edited
 *
 *      Enter commits the line, ^D commits without a newline (alone: end of input), Backspace takes a
 *      character back, ^U all of them, ^C ends the process in the foreground.
 *
 * One process is in the foreground and may read. It is handed from parent to child by spawn(), and
 * back when the child ends. ^C spares the shell, init's child: it only loses the line. */
#include "kernel.h"

#define CONTROL(letter) ((letter) - '@')
#define ESCAPE 0x1b
#define DELETE 0x7f
#define RING 256

static char ring[RING];
static unsigned read_at, committed, edited; /* they only grow; the ring's index is their remainder */
static bool in_escape;                      /* in the middle of a function key's bytes */
static bool interrupted;                    /* ^C came while the shell was in the foreground */
static const struct process *foreground;

void console_put(char c)
{
    if (c == '\n')
        serial_put('\r');
    serial_put(c);
}

void print(const char *format, ...)
{
    char text[160];
    va_list arguments;
    va_start(arguments, format);
    format_text(text, sizeof text, format, arguments);
    va_end(arguments);
    for (const char *t = text; *t != '\0'; t++)
        console_put(*t);
}

/* The console changes hands only if it is in those of from; NULL has it at first. */
void console_hand_over(const struct process *from, const struct process *to)
{
    if (foreground == from)
        foreground = to;
}

/* Erase the last character: all its bytes in the ring (UTF-8), all its columns on the screen. */
static void take_back(void)
{
    do
        edited--;
    while (edited != committed && (ring[edited % RING] & 0xc0) == 0x80);
    bool wide = (uint8_t)ring[edited % RING] >= 0xe3; /* U+3000 and up: Hangul, Hanja, Kana */
    print(wide ? "\b\b  \b\b" : "\b \b");
}

static void interrupt_foreground(void)
{
    print("^C\n");
    edited = committed;
    const struct process *parent = foreground->parent;
    if (parent != NULL && parent->parent != NULL) {
        process_kill(foreground->pid);
    } else {
        interrupted = true;
        wake(ring);
    }
}

static void key(char c)
{
    if (c == ESCAPE || in_escape) { /* ESC [ 1 ; 5 A: arrows and the like mean nothing here */
        in_escape = c == ESCAPE || c == '[' || c < '@';
        return;
    }
    if (c == '\r')
        c = '\n';
    switch (c) {
    case CONTROL('C'):
        interrupt_foreground();
        break;
    case CONTROL('U'):
        while (edited != committed)
            take_back();
        break;
    case '\b':
    case DELETE:
        if (edited != committed)
            take_back();
        break;
    default:
        if ((c < ' ' && c != '\n' && c != CONTROL('D')) || edited - read_at == RING)
            break;
        bool line_is_full = edited - committed >= ARGUMENTS_MAX - 2;
        if (line_is_full && c != '\n' && c != CONTROL('D'))
            break;
        ring[edited++ % RING] = c;
        if (c != CONTROL('D'))
            console_put(c);
        if (c == '\n' || c == CONTROL('D')) {
            committed = edited;
            wake(ring);
        }
    }
}

void console_interrupt(void)
{
    for (char c; serial_take(&c);)
        key(c);
}

/* The rest of the line, or as much of it as fits; 0 at the end of input. */
long console_read(uint64_t buffer, uint64_t capacity)
{
    if (current != foreground)
        return E(NOT_PERMITTED);
    while (read_at == committed) {
        if (current->killed || interrupted) {
            interrupted = false;
            return E(INTERRUPTED);
        }
        sleep_on(ring);
    }
    char line[ARGUMENTS_MAX];
    uint64_t length = 0;
    while (length < capacity && length < sizeof line && read_at != committed) {
        char c = ring[read_at % RING];
        if (c == CONTROL('D') && length > 0)
            break;
        read_at++;
        if (c == CONTROL('D'))
            break;
        line[length++] = c;
        if (c == '\n')
            break;
    }
    long error = copy_to_user(buffer, line, length);
    return error < 0 ? error : (long)length;
}
