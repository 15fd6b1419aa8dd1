/* sbuf.c: text that grows in an arena, and the decimal text of a double. */
#include "base/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sb_init(Sbuf *b, Arena *a) {
    *b = (Sbuf){.a = a};
}

void sb_put(Sbuf *b, const char *s, size_t len) {
    if (b->failed) return;
    if (b->cap - b->len <= len) {
        size_t cap = b->cap ? b->cap * 2 : 256;
        while (cap - b->len <= len) cap *= 2;
        char *t = arena_alloc(b->a, cap);
        b->failed = !t;
        if (!t) return;
        if (b->len) memcpy(t, b->s, b->len);
        b->s = t;
        b->cap = cap;
    }
    if (len) memcpy(b->s + b->len, s, len);
    b->len += len;
    b->s[b->len] = 0;
}

void sb_str(Sbuf *b, const char *s) {
    sb_put(b, s, strlen(s));
}
void sb_chr(Sbuf *b, char c) {
    sb_put(b, &c, 1);
}

void sb_fmt(Sbuf *b, const char *fmt, ...) {
    char small[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < (int)sizeof small) {
        sb_put(b, small, n < 0 ? 0 : (size_t)n);
        return;
    }
    va_start(ap, fmt);
    char *s = arena_vfmt(b->a, fmt, ap);
    va_end(ap);
    b->failed |= !s;
    if (s) sb_put(b, s, (size_t)n);
}

/* The shortest of %.1g .. %.17g that reads back to the same bits. The process runs in the "C" numeric locale:
 * nothing here ever calls setlocale. */
void sb_double(Sbuf *b, double v) {
    char t[40];
    if (isnan(v)) {
        sb_str(b, "nan");
        return;
    }
    if (isinf(v)) {
        sb_str(b, v > 0 ? "inf" : "-inf");
        return;
    }
    if (fabs(v) < 1e15 && v == floor(v) && !(v == 0 && signbit(v))) {
        snprintf(t, sizeof t, "%.0f", v);
        sb_str(b, t);
        return;
    }
    for (int p = 1; p <= 17; p++) {
        snprintf(t, sizeof t, "%.*g", p, v);
        if (strtod(t, NULL) == v) break;
    }
    sb_str(b, t);
}
