/* names.c: between the memory of a state row and its tensor in a file.
 *
 * Memory is row-major over the row's dims. A file is row-major over the stored axes, `(qh,hd),hidden`,
 * where `1` is an axis without a dim; and under one of the two names the dim that `halves` gives holds the
 * first numbers of all rotary pairs, then the second ones: stored c * n/2 + i is memory 2 * i + c. Both
 * directions are one odometer over the dims in stored order, whose innermost contiguous run is copied at
 * once. */
#include "runtime/checkpoint/files.h"

#include <string.h>

typedef struct {
    uint32_t naxis, ndim;
    int64_t axis[PLAN_MAX_DIMS];
    uint32_t dim[PLAN_MAX_DIMS]; /* dims in stored order: indices of PlanState.dim */
} Stored;

static bool name_is(const char *name, const char *s, size_t len) {
    return strlen(name) == len && !memcmp(name, s, len);
}

/* Appends the dim written at s[0 .. len) to the current axis; "1" adds nothing. */
static bool add_dim(const PlanState *s, Stored *t, const char *name, size_t len, bool *used) {
    if (len == 1 && name[0] == '1') return true;
    for (uint32_t i = 0; i < s->ndim; i++) {
        if (used[i] || !name_is(s->dim[i], name, len)) continue;
        used[i] = true;
        t->dim[t->ndim++] = i;
        t->axis[t->naxis] *= s->size[i];
        return true;
    }
    return false;
}

static bool parse_axes(const PlanState *s, Stored *t) {
    bool used[PLAN_MAX_DIMS] = {false};
    *t = (Stored){0};
    const char *p = s->axes ? s->axes : "";
    while (*p) {
        if (t->naxis == PLAN_MAX_DIMS) return false;
        t->axis[t->naxis] = 1;
        bool group = *p == '(';
        if (group) p++;
        for (;;) {
            size_t len = strcspn(p, "(),");
            if (!len || !add_dim(s, t, p, len, used)) return false;
            p += len;
            if (!group || *p != ',') break;
            p++;
        }
        if (group && *p++ != ')') return false;
        t->naxis++;
        if (!*p) break;
        if (*p++ != ',' || !*p) return false;
    }
    if (t->naxis == 0) { /* a state of the graph: stored as it lies */
        for (uint32_t i = 0; i < s->ndim; i++) {
            t->axis[t->naxis++] = s->size[i];
            t->dim[t->ndim++] = i;
        }
    }
    return t->ndim == s->ndim;
}

/* One `hf=hd` or `meta=hd`. */
static bool parse_half(const PlanState *s, NameStyle style, const char *text, size_t len, int *dim) {
    const char *eq = memchr(text, '=', len);
    if (!eq) return false;
    bool hf = name_is("hf", text, (size_t)(eq - text));
    if (!hf && !name_is("meta", text, (size_t)(eq - text))) return false;
    for (uint32_t i = 0; i < s->ndim; i++) {
        if (!name_is(s->dim[i], eq + 1, len - (size_t)(eq + 1 - text))) continue;
        if (hf == (style == NAMES_HF)) *dim = (int)i;
        return s->size[i] % 2 == 0;
    }
    return false;
}

/* The dim whose rotary pairs are split under `style`, as an index of PlanState.dim; -1: none. false: bad
 * text. */
static bool parse_halves(const PlanState *s, NameStyle style, int *dim) {
    *dim = -1;
    for (const char *text = s->halves ? s->halves : ""; *text;) {
        size_t len = strcspn(text, ",");
        if (!parse_half(s, style, text, len, dim)) return false;
        text += len + (text[len] == ',');
    }
    return true;
}

bool state_axes_ok(const PlanState *s) {
    Stored t;
    int dim;
    return s->ndim <= PLAN_MAX_DIMS && parse_axes(s, &t) && parse_halves(s, NAMES_META, &dim);
}

/* Shape in a file: the sizes of the stored axes. A row whose axes do not parse (state_axes_ok) has no
 * axes. */
void state_stored_shape(const PlanState *s, int64_t *shape, uint32_t *ndim) {
    Stored t;
    *ndim = 0;
    if (!parse_axes(s, &t)) return;
    *ndim = t.naxis;
    memcpy(shape, t.axis, sizeof(int64_t) * t.naxis);
}

const int plan_dtype_bytes[5] = {8, 4, 2, 4, 1};

const char *state_dtype_text(PlanDType t) {
    static const char *const text[5] = {"F64", "F32", "BF16", "I32", "BOOL"};
    return text[t];
}

void bytes_hex(const unsigned char *p, size_t n, char *hex) {
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        hex[2 * i] = digit[p[i] >> 4];
        hex[2 * i + 1] = digit[p[i] & 15];
    }
    hex[2 * n] = 0;
}

int64_t state_elements(const PlanState *s) {
    int64_t n = 1;
    for (uint32_t i = 0; i < s->ndim; i++) n *= s->size[i];
    return n;
}

int64_t state_bytes(const PlanState *s) {
    return state_elements(s) * plan_dtype_bytes[s->dtype];
}

typedef struct {
    uint32_t n;
    int64_t size[PLAN_MAX_DIMS],
        stride[PLAN_MAX_DIMS]; /* outer dims in stored order; strides in bytes of memory */
    bool halved[PLAN_MAX_DIMS];
    int64_t run; /* bytes that lie together on both sides */
} Walk;

static void plan_walk(const PlanState *s, NameStyle style, Walk *w) {
    Stored t;
    int halved = -1;
    *w = (Walk){.run = plan_dtype_bytes[s->dtype]};
    if (!parse_axes(s, &t) || !parse_halves(s, style, &halved)) return;
    int64_t stride[PLAN_MAX_DIMS], at = w->run;
    for (uint32_t i = s->ndim; i-- > 0; at *= s->size[i]) stride[i] = at;
    w->n = t.ndim;
    while (w->n && (int)t.dim[w->n - 1] != halved && stride[t.dim[w->n - 1]] == w->run)
        w->run *= s->size[t.dim[--w->n]];
    for (uint32_t i = 0; i < w->n; i++) {
        w->size[i] = s->size[t.dim[i]];
        w->stride[i] = stride[t.dim[i]];
        w->halved[i] = (int)t.dim[i] == halved;
    }
}

bool state_as_stored(const PlanState *s, NameStyle style) {
    Walk w;
    plan_walk(s, style, &w);
    return w.n == 0;
}

static int64_t memory_offset(const Walk *w, const int64_t *i) {
    int64_t at = 0;
    for (uint32_t k = 0; k < w->n; k++) {
        int64_t half = w->size[k] / 2;
        int64_t place = !w->halved[k] ? i[k] : i[k] < half ? 2 * i[k] : 2 * (i[k] - half) + 1;
        at += place * w->stride[k];
    }
    return at;
}

static void copy_rows(const PlanState *s, NameStyle style, char *mem, char *stored, bool to_stored) {
    Walk w;
    int64_t i[PLAN_MAX_DIMS] = {0};
    plan_walk(s, style, &w);
    if (state_elements(s) == 0) return;
    for (;;) {
        char *m = mem + memory_offset(&w, i);
        memcpy(to_stored ? stored : m, to_stored ? m : stored, (size_t)w.run);
        stored += w.run;
        uint32_t k = w.n;
        while (k && ++i[k - 1] == w.size[k - 1]) i[--k] = 0;
        if (!k) return;
    }
}

/* Copies a whole tensor from memory to its form in a file. mem is only read. */
void state_to_stored(const PlanState *s, NameStyle style, const void *mem, void *out) {
    union {
        const void *in;
        char *out;
    } u = {mem};
    copy_rows(s, style, u.out, out, true);
}

/* The inverse of state_to_stored: in is only read. */
void state_from_stored(const PlanState *s, NameStyle style, const void *in, void *mem) {
    union {
        const void *in;
        char *out;
    } u = {in};
    copy_rows(s, style, mem, u.out, false);
}

const char *state_name(const PlanState *s, NameStyle style) {
    return style == NAMES_HF && s->hf && s->hf[0] ? s->hf : s->name;
}

bool state_is(const PlanState *s, const char *role) {
    return s->role && !strcmp(s->role, role);
}

const char *state_key(Arena *a, const PlanState *s, NameStyle style) {
    const char *name = state_name(s, style);
    return s->model && s->model[0] ? arena_fmt(a, "%s/%s", s->model, name) : arena_str(a, name, strlen(name));
}

/* bf16 is the upper half of an f32; f16 has 5 bits of exponent and 10 of fraction. */
static double widen16(uint16_t h, bool bf16) {
    union {
        uint32_t u;
        float f;
    } v;
    if (bf16) {
        v.u = (uint32_t)h << 16;
        return (double)v.f;
    }
    uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = (h >> 10) & 31, fraction = h & 1023u;
    if (exponent == 0) { /* zero and subnormal: fraction * 2^-24 is exact */
        double x = (double)fraction * 0x1p-24;
        return sign ? -x : x;
    }
    v.u = sign | (exponent == 31 ? 255u << 23 : (exponent + 112) << 23) | fraction << 13;
    return (double)v.f;
}

static uint16_t narrow16(float x) {
    union {
        float f;
        uint32_t u;
    } v = {x};
    if ((v.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(v.u >> 16 | 0x40u); /* a NaN stays one */
    return (uint16_t)((v.u + 0x7fffu + (v.u >> 16 & 1u)) >> 16);
}

bool real_dtype(const char *name, RealDType *t) {
    static const struct {
        const char *name;
        RealDType t;
    } row[] = {{"F64", {8, false}}, {"F32", {4, false}}, {"BF16", {2, true}}, {"F16", {2, false}}};
    for (size_t i = 0; i < WM_LEN(row); i++) {
        if (strcmp(row[i].name, name)) continue;
        *t = row[i].t;
        return true;
    }
    return false;
}

/* Element i of an array of reals. */
static double real_at(RealDType t, const char *p, int64_t i) {
    union {
        double d;
        float f;
        uint16_t h;
    } v;
    memcpy(&v, p + i * t.bytes, (size_t)t.bytes);
    if (t.bytes == 8) return v.d;
    return t.bytes == 4 ? (double)v.f : widen16(v.h, t.bf16);
}

void reals_convert(RealDType from, const void *in, RealDType to, void *out, int64_t count) {
    if (from.bytes == to.bytes && from.bf16 == to.bf16) {
        memcpy(out, in, (size_t)(count * from.bytes));
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        double x = real_at(from, in, i);
        union {
            double d;
            float f;
            uint16_t h;
        } v;
        if (to.bytes == 8)
            v.d = x;
        else if (to.bytes == 4)
            v.f = (float)x;
        else
            v.h = narrow16((float)x);
        memcpy((char *)out + i * to.bytes, &v, (size_t)to.bytes);
    }
}
