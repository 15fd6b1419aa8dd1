/* text.c: UTF-8, terminal width, numbers without a locale, did-you-mean. */
#include "base/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistr.h>
#include <uniwidth.h>

bool text_utf8_ok(const char *s, size_t n, size_t *bad_at) {
    const uint8_t *bad = u8_check((const uint8_t *)s, n);
    if (bad && bad_at) *bad_at = (size_t)((const char *)bad - s);
    return !bad;
}

int text_width(const char *s, size_t n) {
    return u8_width((const uint8_t *)s, n, "UTF-8");
}

const char *text_escape(Arena *a, const char *s, size_t n) {
    Sbuf b;
    sb_init(&b, a);
    sb_put(&b, "", 0);
    for (size_t i = 0; i < n;) {
        ucs4_t c;
        int len = u8_mbtoucr(&c, (const uint8_t *)s + i, n - i);
        if (len <= 0) {
            sb_fmt(&b, "\\x%02x", (unsigned)(unsigned char)s[i]);
            i++;
        } else if (c < 32 || (c >= 127 && c < 160) || (c >= 0x2028 && c <= 0x202e) ||
                   (c >= 0x2066 && c <= 0x2069) || c == 0xfeff || (c & 0xfffe) == 0xfffe) {
            sb_fmt(&b, "\\u{%x}",
                   (unsigned)c); /* controls, line ends, what turns the direction of writing, no characters */
            i += (size_t)len;
        } else {
            sb_put(&b, s + i, (size_t)len);
            i += (size_t)len;
        }
    }
    return b.s;
}

/* Damerau-Levenshtein (optimal string alignment) on bytes; both shorter than 64, else "far". */
static size_t distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n > 63 || m > 63) return 64;
    unsigned char row[3][65] = {{0}};
    for (size_t j = 0; j <= m; j++) row[0][j] = (unsigned char)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned char *now = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
        now[0] = (unsigned char)i;
        for (size_t j = 1; j <= m; j++) {
            int best = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            now[j] = (unsigned char)best;
        }
    }
    return row[n % 3][m];
}

const char *text_nearest(const char *word, const char *const *cands, size_t n) {
    const char *best = NULL;
    size_t limit = strlen(word) / 3;
    if (limit == 0 && strlen(word) == 2) limit = 1;
    for (size_t i = 0, best_d = limit + 1; i < n; i++) {
        size_t d = distance(word, cands[i]);
        if (d < best_d) {
            best_d = d;
            best = cands[i];
        }
    }
    return best;
}

bool text_int(const char *s, size_t n, int64_t *v) {
    size_t i = 0;
    bool minus = n > 0 && s[0] == '-';
    if (minus || (n > 0 && s[0] == '+')) i++;
    if (i == n) return false;
    int64_t x = 0;
    for (; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        int digit = s[i] - '0';
        if (__builtin_mul_overflow(x, 10, &x)) return false;
        if (minus ? __builtin_sub_overflow(x, digit, &x) : __builtin_add_overflow(x, digit, &x)) return false;
    }
    *v = x;
    return true;
}

/* Grammar: [+-] (digits [. digits] | . digits) [e [+-] digits], or inf, nan with a sign; nothing else reaches
 * strtod. */
bool text_double(const char *s, size_t n, double *v) {
    char buf[128];
    size_t i = 0, digits = 0;
    if (n == 0 || n >= sizeof buf) return false;
    memcpy(buf, s, n);
    buf[n] = 0;
    if (s[i] == '+' || s[i] == '-') i++;
    if (strcmp(buf + i, "inf") == 0 || strcmp(buf + i, "nan") == 0) {
        *v = buf[i] == 'n' ? NAN : buf[0] == '-' ? -INFINITY : INFINITY;
        return true;
    }
    while (i < n && s[i] >= '0' && s[i] <= '9') i++, digits++;
    if (i < n && s[i] == '.') {
        i++;
        while (i < n && s[i] >= '0' && s[i] <= '9') i++, digits++;
    }
    if (!digits) return false;
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        if (i < n && (s[i] == '+' || s[i] == '-')) i++;
        size_t first = i;
        while (i < n && s[i] >= '0' && s[i] <= '9') i++;
        if (i == first) return false;
    }
    if (i != n) return false;
    *v = strtod(buf, NULL);
    return true;
}
