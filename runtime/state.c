/* state.c: what outlives a step, as rows of the plan: initial values and hashes.
 *
 * Initial values are counter-based: element i of a row takes word i & 3 of Philox block i >> 2 of the
 * row's stream, so they do not depend on the order in which rows are filled or on who fills them. Hashes
 * walk the parameters in byte order of their names and feed the stored form, so two runs agree exactly
 * when their saved weights would. */
#include "runtime/checkpoint/files.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

static void *exec_row(void *ctx, uint32_t row) {
    return exec_state_ptr(ctx, row);
}

/* All rows of a plan in the memory of its executor. */
StateView exec_view(Exec *e, const Plan *p) {
    return (StateView){p->state, p->nstate, exec_row, e};
}

/* ---- initial values */

typedef enum { INIT_CONST, INIT_NORMAL, INIT_UNIFORM } InitKind;
typedef struct {
    InitKind kind;
    double a, b;
} Init;

static bool parse_init(const char *text, Init *out) {
    static const struct {
        const char *name;
        int numbers;
    } form[] = {
        [INIT_CONST] = {"const:", 1}, [INIT_NORMAL] = {"normal:", 2}, [INIT_UNIFORM] = {"uniform:", 2}};
    for (size_t k = 0; text && k < WM_LEN(form); k++) {
        size_t len = strlen(form[k].name);
        if (strncmp(text, form[k].name, len)) continue;
        const char *first = text + len, *comma = strchr(first, ',');
        *out = (Init){.kind = (InitKind)k};
        if (form[k].numbers == 1) return text_double(first, strlen(first), &out->a);
        return comma && text_double(first, (size_t)(comma - first), &out->a) &&
               text_double(comma + 1, strlen(comma + 1), &out->b);
    }
    return false;
}

/* Four values of one block. A normal is made by Box and Muller from words 2k and 2k + 1: cosine, then
 * sine. */
static void draw4(const Init *init, uint64_t seed, uint64_t block, uint32_t stream, double out[4]) {
    uint32_t w[4];
    philox4x32(seed, block, 0, stream, w);
    for (int k = 0; k < 4; k += 2) {
        double u = philox_unit(w[k]), v = philox_unit(w[k + 1]);
        if (init->kind == INIT_UNIFORM) {
            out[k] = init->a + (init->b - init->a) * u;
            out[k + 1] = init->a + (init->b - init->a) * v;
            continue;
        }
        double radius = sqrt(-2.0 * log(u)), angle = 6.283185307179586476925286766559 * v;
        out[k] = init->a + init->b * (radius * cos(angle));
        out[k + 1] = init->a + init->b * (radius * sin(angle));
    }
}

static void store(void *mem, PlanDType dt, int64_t i, double x) {
    if (dt == PD_F64)
        ((double *)mem)[i] = x;
    else if (dt == PD_F32)
        ((float *)mem)[i] = (float)x;
    else if (dt == PD_I32)
        ((int32_t *)mem)[i] = (int32_t)x;
    else if (dt == PD_BOOL)
        ((unsigned char *)mem)[i] = x != 0;
    else
        reals_convert((RealDType){8, false}, &x, (RealDType){2, true}, (char *)mem + 2 * i, 1);
}

typedef struct {
    const PlanState *row;
    Init init;
    uint64_t seed;
} Fill;

/* A part of the blocks of one row, as a kernel: who fills which changes no value. */
static void fill_part(void *const *arg, int part, int nparts) {
    const Fill *f = arg[0];
    void *mem = arg[1];
    int64_t count = state_elements(f->row), blocks = (count + 3) / 4, to = blocks * (part + 1) / nparts * 4;
    double value[4] = {f->init.a, f->init.a, f->init.a, f->init.a};
    for (int64_t i = blocks * part / nparts * 4; i < to && i < count; i++) {
        if (f->init.kind != INIT_CONST && (i & 3) == 0)
            draw4(&f->init, f->seed, (uint64_t)i >> 2, f->row->stream, value);
        store(mem, f->row->dtype, i, value[i & 3]);
    }
}

static bool fill_of(const PlanState *s, uint64_t seed, Fill *f, Diags *d) {
    *f = (Fill){.row = s, .seed = seed};
    return parse_init(s->init, &f->init) ||
           diag_fail(d, P001, NOLOC,
                     "state '%s%s%s': initial value '%s' is none of const:V, normal:MEAN,STD, uniform:LO,HI",
                     s->model, s->model[0] ? "/" : "", s->name, s->init ? s->init : "");
}

bool state_init(const PlanState *s, uint64_t seed, void *mem, Diags *d) {
    Fill f;
    if (!fill_of(s, seed, &f, d)) return false;
    void *arg[] = {&f, mem};
    fill_part(arg, 0, 1);
    return true;
}

bool exec_init_states(Exec *e, Diags *d) {
    const Plan *p = exec_plan(e);
    for (uint32_t i = 0; i < p->nstate; i++) {
        Fill f;
        if (!fill_of(&p->state[i], exec_seed(e), &f, d)) return false;
        void *arg[] = {&f, exec_state_ptr(e, i)};
        exec_share(e, fill_part, arg, state_bytes(&p->state[i]));
    }
    return true;
}

/* ---- hashes */

typedef struct {
    const PlanState *row;
    uint32_t index;
} Entry;

/* Byte order of MODEL/NAME without building the text. */
static int by_key(const void *x, const void *y) {
    const PlanState *a = ((const Entry *)x)->row, *b = ((const Entry *)y)->row;
    const char *p[2][3] = {{a->model, "/", a->name}, {b->model, "/", b->name}};
    int i = 0, j = 0;
    for (const char *s = p[0][0], *t = p[1][0];;) {
        while (!*s && i < 2) s = p[0][++i];
        while (!*t && j < 2) t = p[1][++j];
        if (*s != *t || !*s) return (int)(unsigned char)*s - (int)(unsigned char)*t;
        s++;
        t++;
    }
}

typedef struct {
    void (*put)(void *ctx, const void *p, size_t bytes);
    void *ctx;
} Sink;

static void put_text(Sink k, const char *s) {
    k.put(k.ctx, s, strlen(s));
}

static void put_number(Sink k, int64_t v) {
    char digit[20];
    size_t n = sizeof digit;
    do {
        digit[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    k.put(k.ctx, digit + n, sizeof digit - n);
}

static void put_head(Sink k, const PlanState *s) {
    int64_t shape[PLAN_MAX_DIMS];
    uint32_t ndim;
    put_text(k, s->model);
    put_text(k, "/");
    put_text(k, s->name);
    k.put(k.ctx, "", 1);
    put_text(k, state_dtype_text(s->dtype));
    k.put(k.ctx, "", 1);
    state_stored_shape(s, shape, &ndim);
    for (uint32_t i = 0; i < ndim; i++) {
        if (i) put_text(k, ",");
        put_number(k, shape[i]);
    }
    k.put(k.ctx, "", 1);
}

static bool put_row(Sink k, Env *env, const PlanState *s, const void *mem, Diags *d) {
    size_t bytes = (size_t)state_bytes(s);
    put_head(k, s);
    if (state_as_stored(s, NAMES_META)) {
        k.put(k.ctx, mem, bytes);
        return true;
    }
    void *stored = env->alloc(env, bytes ? bytes : 1);
    if (!stored)
        return diag_fail(d, R006, NOLOC, "no memory to hash '%s/%s' (%zu bytes)", s->model, s->name, bytes);
    state_to_stored(s, NAMES_META, mem, stored);
    k.put(k.ctx, stored, bytes);
    env->free(env, stored);
    return true;
}

static bool hash_rows(const StateView *v, Env *env, const char *model, Sink k, Diags *d) {
    Entry *e = env->alloc(env, (v->n + 1) * sizeof *e);
    if (!e) return diag_fail(d, R006, NOLOC, "no memory to hash %u states", v->n);
    size_t n = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        const PlanState *s = &v->row[i];
        bool wanted = state_is(s, "param") && (model ? !strcmp(s->model, model) : s->trained);
        if (wanted) e[n++] = (Entry){s, i};
    }
    if (n) qsort(e, n, sizeof *e, by_key);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) ok = put_row(k, env, e[i].row, v->mem(v->ctx, e[i].index), d);
    env->free(env, e);
    return ok;
}

static void put_sha(void *ctx, const void *p, size_t bytes) {
    (void)EVP_DigestUpdate(ctx, p, bytes);
}

static void put_xxh(void *ctx, const void *p, size_t bytes) {
    hash128_put(ctx, p, bytes);
}

bool state_sha256(const StateView *v, Env *env, char hex[65], Diags *d) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1;
    if (!ok) (void)diag_fail(d, R006, NOLOC, "SHA-256 could not be started");
    ok = ok && hash_rows(v, env, NULL, (Sink){put_sha, c}, d) && EVP_DigestFinal_ex(c, digest, NULL) == 1;
    EVP_MD_CTX_free(c);
    if (ok) bytes_hex(digest, 32, hex);
    return ok;
}

bool model_hash(const StateView *v, Env *env, const char *model, char hex[33], Diags *d) {
    Hash128 h;
    hash128_start(&h);
    if (!hash_rows(v, env, model, (Sink){put_xxh, &h}, d)) return false;
    hash128_end(&h, hex);
    return true;
}
