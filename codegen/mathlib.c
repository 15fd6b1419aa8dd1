/* mathlib.c: prints the rows of mathlib.inc that a kernel needs, in the order of the table, each once. */
#include "codegen/emit.h"

#include <string.h>

typedef struct {
    const char *name, *needs, *text;
} MathRow;
static const MathRow row[] = {
#define MATH(name, needs, text) {#name, needs, text},
#include "codegen/mathlib.inc"
#undef MATH
};
enum { NROW = sizeof row / sizeof row[0] };
static const char *const suffix[NDTYPE] = {
    [DT_F64] = "_f64", [DT_F32] = "_f32", [DT_BF16] = "_f32", [DT_I32] = "_f64", [DT_BOOL] = "_f64"};

/* Row named `name`, or name with the dtype's suffix; n bytes of it. NROW: there is none. */
static size_t find(const char *name, size_t n, DType dt) {
    size_t k = strlen(suffix[dt]);
    for (size_t i = 0; i < NROW; i++) {
        size_t len = strlen(row[i].name);
        if (len == n && memcmp(row[i].name, name, n) == 0) return i;
        if (len == n + k && memcmp(row[i].name, name, n) == 0 && memcmp(row[i].name + n, suffix[dt], k) == 0)
            return i;
    }
    return NROW;
}

void mathlib_put(Sbuf *out, DType dt, const char *const *names, uint32_t n) {
    bool need[NROW] = {false};
    for (uint32_t i = 0; i < n; i++) {
        size_t at = find(names[i], strlen(names[i]), dt);
        wm_check(out->a, at < NROW, "no elementary function '%s'", names[i]);
        need[at] = true;
    }
    for (size_t i = NROW; i-- > 0;) { /* needs stand above */
        const char *s = need[i] ? row[i].needs : "";
        while (*s) {
            size_t len = strcspn(s, " "), at = find(s, len, dt);
            wm_check(out->a, at < i, "elementary function '%s' needs a row above it", row[i].name);
            need[at] = true;
            s += len + (s[len] == ' ');
        }
    }
    for (size_t i = 0; i < NROW; i++)
        if (need[i]) sb_str(out, row[i].text);
}
