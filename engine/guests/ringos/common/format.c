/* Text and memory helpers that the kernel and its programs share. */
#include "format.h"

void *memcpy(void *to, const void *from, size_t bytes)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    if ((((uintptr_t)t | (uintptr_t)f) & 7) == 0)
        for (; bytes >= 8; bytes -= 8, t += 8, f += 8)
            *(uint64_t *)t = *(const uint64_t *)f;
    while (bytes-- > 0)
        *t++ = *f++;
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    uint8_t *t = to;
    while (bytes-- > 0)
        *t++ = (uint8_t)value;
    return to;
}

size_t strlen(const char *text)
{
    size_t length = 0;
    while (text[length] != '\0')
        length++;
    return length;
}

bool same_text(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b)
        a++, b++;
    return *a == *b;
}

bool starts_with(const char *text, const char *prefix)
{
    while (*prefix != '\0' && *text == *prefix)
        text++, prefix++;
    return *prefix == '\0';
}

/* The digits of value, most significant first, in a buffer of at least 21 bytes. */
static const char *digits_of(uint64_t value, unsigned base, char buffer[21])
{
    char *digit = buffer + 20;
    *digit = '\0';
    do {
        *--digit = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    return digit;
}

struct output {
    char *to;
    size_t length, capacity;
};

static void put(struct output *output, char c)
{
    if (output->length + 1 < output->capacity)
        output->to[output->length++] = c;
}

static void put_text(struct output *output, const char *text)
{
    while (*text != '\0')
        put(output, *text++);
}

size_t format_text(char *to, size_t capacity, const char *format, va_list arguments)
{
    struct output output = {to, 0, capacity};
    char digits[21];
    for (const char *f = format; *f != '\0'; f++) {
        if (*f != '%') {
            put(&output, *f);
            continue;
        }
        switch (*++f) {
        case 's':
            put_text(&output, va_arg(arguments, const char *));
            break;
        case 'c':
            put(&output, (char)va_arg(arguments, int));
            break;
        case 'd': {
            long value = va_arg(arguments, long);
            if (value < 0)
                put(&output, '-');
            put_text(&output, digits_of(value < 0 ? -(uint64_t)value : (uint64_t)value, 10, digits));
            break;
        }
        case 'u':
            put_text(&output, digits_of(va_arg(arguments, uint64_t), 10, digits));
            break;
        case 'x':
            put_text(&output, "0x");
            put_text(&output, digits_of(va_arg(arguments, uint64_t), 16, digits));
            break;
        default:
            put(&output, *f);
        }
    }
    to[output.length] = '\0';
    return output.length;
}
