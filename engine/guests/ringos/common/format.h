/* Text and memory helpers that the kernel and its programs share. */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
size_t strlen(const char *text);
bool same_text(const char *a, const char *b);
bool starts_with(const char *text, const char *prefix);

/* Write at most capacity bytes, the final zero included; return the length without it.
 * Knows %s, %c, %% and the 64-bit %d, %u, %x: every number is passed as long or uint64_t. */
size_t format_text(char *to, size_t capacity, const char *format, va_list arguments);
