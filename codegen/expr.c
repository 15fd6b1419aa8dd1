/* expr.c: the expr column of an element-wise op as C: operands put in, functions and constants of the dtype.
 *
 * The text has names x0 x1 x2, functions in upper case (EXP, LOG1P), numbers and operators. A number with a
 * point gets the dtype's suffix, so that f32 arithmetic is never widened; whole numbers stay ints and convert
 * exactly. */
#include "codegen/emit.h"

#include <math.h>
#include <string.h>

const char *c_type(DType dt) {
    static const char *const name[NDTYPE] = {[DT_F64] = "double",
                                             [DT_F32] = "float",
                                             [DT_BF16] = "unsigned short",
                                             [DT_I32] = "int",
                                             [DT_BOOL] = "unsigned char"};
    return name[dt];
}

void c_const(Sbuf *out, DType dt, double v) {
    bool single = dt == DT_F32 || dt == DT_BF16;
    if (dt == DT_I32)
        sb_fmt(out, "(%lld)", (long long)v);
    else if (dt == DT_BOOL)
        sb_str(out, v != 0 ? "1" : "0");
    else if (isnan(v))
        sb_str(out, single ? "__builtin_nanf(\"\")" : "__builtin_nan(\"\")");
    else if (isinf(v))
        sb_fmt(out, "(%s%s)", v < 0 ? "-" : "", single ? "__builtin_inff()" : "__builtin_inf()");
    else if (single)
        sb_fmt(out, "(%af)", (double)(float)v);
    else
        sb_fmt(out, "(%a)", v);
}

static bool upper(char c) {
    return c >= 'A' && c <= 'Z';
}
static bool digit(char c) {
    return c >= '0' && c <= '9';
}

/* EXP -> exp_f32, noted in `used`. */
static size_t put_function(Sbuf *out, const char *s, DType dt, const char **used, uint32_t *nused) {
    size_t n = 0;
    while (upper(s[n]) || digit(s[n])) n++;
    char *name = arena_fmt(out->a, "%.*s_%s", (int)n, s, dt == DT_F64 ? "f64" : "f32");
    for (size_t i = 0; i < n; i++)
        if (upper(name[i])) name[i] = (char)(name[i] - 'A' + 'a');
    sb_str(out, name);
    for (uint32_t i = 0; i < *nused; i++)
        if (strcmp(used[i], name) == 0) return n;
    used[(*nused)++] = name;
    return n;
}

static size_t put_number(Sbuf *out, const char *s, DType dt) {
    size_t n = 0;
    bool point = false;
    while (digit(s[n]) || s[n] == '.') point |= s[n++] == '.';
    double v = 0;
    if (!point)
        sb_put(out, s, n);
    else if (text_double(s, n, &v))
        c_const(out, dt, v);
    return n;
}

void expr_put(Sbuf *out, const char *expr, DType dt, const char *const x[3], const char **used,
              uint32_t *nused) {
    for (const char *s = expr; *s;) {
        if (*s == 'x' && s[1] >= '0' && s[1] <= '2') {
            sb_str(out, x[s[1] - '0']);
            s += 2;
        } else if (upper(*s))
            s += put_function(out, s, dt, used, nused);
        else if (digit(*s))
            s += put_number(out, s, dt);
        else
            sb_chr(out, *s++);
    }
}
