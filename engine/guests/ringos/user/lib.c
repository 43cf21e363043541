/* Helpers that every program is linked with. */
#include "lib.h"

void print(const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    write(text, format_text(text, sizeof text, format, arguments));
    va_end(arguments);
}

const char *error_text(long error)
{
    static const char *const texts[] = {
#define ROW(name, text) text,
        ERRORS(ROW)
#undef ROW
    };
    unsigned long index = -(unsigned long)error;
    return index < sizeof texts / sizeof *texts ? texts[index] : "unknown error";
}

char *next_word(char **text)
{
    char *word = *text;
    while (*word == ' ')
        word++;
    char *end = word;
    while (*end != '\0' && *end != ' ')
        end++;
    *text = end;
    if (*end == ' ')
        *(*text)++ = '\0';
    return word;
}

long number(const char *text)
{
    long value = 0;
    int digits = 0;
    for (; *text >= '0' && *text <= '9'; text++, digits++)
        value = value * 10 + (*text - '0');
    return digits > 0 && digits <= 18 && *text == '\0' ? value : -1;
}
