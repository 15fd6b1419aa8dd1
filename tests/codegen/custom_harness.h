/* custom_harness.h: one node against the evaluator.
 *
 * A case is a graph of leaves and the nodes under test. Its values lie in one block with guard bytes around
 * each; memory is NaN before a run. Every node is run with 1 to 4 parts, for both CPU levels, parts in both
 * orders: the bits must agree, the guards stand, and the numbers meet the evaluator's within a relative L2
 * error. */
#ifndef CUSTOM_HARNESS_H
#define CUSTOM_HARNESS_H

#include "codegen/emit.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H_LEAVES = 64, H_GUARD = 192 };
typedef enum { FILL_REAL, FILL_POSITIVE, FILL_MASK, FILL_TOKEN, FILL_SPARSE, FILL_ZERO, FILL_IGNORE } Fill;

typedef struct {
    Arena *a;
    Diags *d;
    Guard guard;
    Graph *g;
    struct {
        ValueId v;
        double *x;
    } leaf[H_LEAVES];
    uint32_t nleaf;
    DType real;
    uint64_t rng;
    ValueId unwanted[8]; /* results without memory */
    uint32_t nunwanted;
    double tol; /* 0: 1e-10 in f64, 2e-5 in f32 */
    uint64_t seed;
    int64_t step;
} Case;

static inline void case_open(Case *c, DType real) {
    memset(c, 0, sizeof *c);
    c->d = diags_open(env_posix());
    c->guard.diags = c->d;
    c->a = arena_open(env_posix(), &c->guard);
    c->g = graph_new(c->a, "case", ST_MATH);
    c->real = real;
    c->rng = 88172645463325252ull;
    c->seed = 1234567;
    c->step = 3;
}
static inline void case_show(Case *c) {
    Sbuf b;
    sb_init(&b, c->a);
    diags_render(c->d, &b, false);
    fprintf(stderr, "%s\n", b.s ? b.s : "");
}
static inline void case_close(Case *c) {
    arena_close(c->a);
    diags_close(c->d);
}
#define CASE_GUARD(c)                                                                                        \
    if (setjmp((c)->guard.out)) {                                                                            \
        case_show(c);                                                                                        \
        cr_assert(false, "a guard was reached");                                                             \
    }

static inline uint64_t case_random(Case *c) {
    c->rng ^= c->rng << 13;
    c->rng ^= c->rng >> 7;
    c->rng ^= c->rng << 17;
    return c->rng;
}
static inline double case_unit(Case *c) {
    return (double)(case_random(c) >> 11) * 0x1p-53;
}

/* "a3 s5 h4": dims with sizes, in this order. */
static inline uint32_t case_dims(Case *c, const char *text, DimId *d) {
    uint32_t n = 0;
    char name[32];
    while (*text) {
        int i = 0;
        while (*text == ' ') text++;
        while (*text && !(*text >= '0' && *text <= '9')) name[i++] = *text++;
        name[i] = 0;
        long size = strtol(text, (char **)&text, 10);
        d[n++] = graph_dim(c->g, name, size);
    }
    return n;
}
static inline DimId case_dim(Case *c, const char *name) {
    DimId d = {0};
    cr_assert(graph_find_dim(c->g, name, &d), "no dim %s", name);
    return d;
}

static inline ValueId case_leaf(Case *c, DType dt, const char *dims, Fill fill, int limit) {
    DimId d[MAX_DIMS] = {{0}};
    uint32_t n = case_dims(c, dims, d);
    Type t = type_make(dt, d, n);
    char name[16];
    snprintf(name, sizeof name, "x%u", c->nleaf);
    Attr at[1] = {at_str(c->g, name)};
    ValueId v = build_leaf(c->g, OP_input, t, at, 1);
    int64_t count = type_count(c->g, &t);
    double *x = NEWN(c->a, double, count > 0 ? count : 1);
    for (int64_t i = 0; i < count; i++) {
        double u = case_unit(c), r = 2 * case_unit(c) - 1;
        if (fill == FILL_REAL) x[i] = 2 * r;
        if (fill == FILL_POSITIVE) x[i] = 0.1 + 2 * u;
        if (fill == FILL_MASK) x[i] = u < 0.6;
        if (fill == FILL_TOKEN) x[i] = u < 0.2 ? -100 : (double)(case_random(c) % (uint64_t)limit);
        if (fill == FILL_SPARSE) x[i] = u < 0.5 ? 0 : r;
        if (fill == FILL_ZERO) x[i] = 0;
        if (fill == FILL_IGNORE) x[i] = -100;
        if (dt == DT_F32) x[i] = (float)x[i];
    }
    c->leaf[c->nleaf].v = v;
    c->leaf[c->nleaf++].x = x;
    return v;
}
static inline ValueId case_real(Case *c, const char *dims) {
    return case_leaf(c, c->real, dims, FILL_REAL, 0);
}

static inline ValueId case_scalar(Case *c, const char *name, double value) {
    Attr at[1] = {at_str(c->g, name)};
    ValueId v = build_leaf(c->g, OP_scalar, type_make(DT_F64, NULL, 0), at, 1);
    double *x = NEWN(c->a, double, 1);
    *x = value;
    c->leaf[c->nleaf].v = v;
    c->leaf[c->nleaf++].x = x;
    return v;
}

static inline bool case_fill_leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    Case *c = ctx;
    (void)g;
    for (uint32_t i = 0; i < c->nleaf; i++)
        if (c->leaf[i].v.i == n->out0) {
            memcpy(out, c->leaf[i].x, (size_t)count * sizeof *out);
            return true;
        }
    return false;
}

static inline void case_put(void *p, DType dt, const double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (dt == DT_F64) ((double *)p)[i] = x[i];
        if (dt == DT_F32) ((float *)p)[i] = (float)x[i];
        if (dt == DT_I32) ((int32_t *)p)[i] = (int32_t)x[i];
        if (dt == DT_BOOL) ((unsigned char *)p)[i] = x[i] != 0;
    }
}
static inline double case_get(const void *p, DType dt, int64_t i) {
    if (dt == DT_F64) return ((const double *)p)[i];
    if (dt == DT_F32) return (double)((const float *)p)[i];
    if (dt == DT_I32) return (double)((const int32_t *)p)[i];
    return (double)((const unsigned char *)p)[i];
}

typedef struct {
    int64_t bytes;
    unsigned char *mem;
} Block;

/* Lays the values out: guard, value, guard, .. and the scratch of nodes at the end. */
static inline int64_t case_place(Case *c) {
    Graph *g = c->g;
    int64_t at = 0;
    for (uint32_t i = 0; i < g->nvalue; i++) {
        Value *v = &g->value[i];
        v->arena = 1;
        for (uint32_t j = 0; j < c->nunwanted; j++)
            if (c->unwanted[j].i == i) v->arena = -1;
        if (v->arena < 0) continue;
        at += H_GUARD;
        v->off = at;
        at += (type_bytes(g, &v->ty) + 63) / 64 * 64;
    }
    for (uint32_t i = 0; i < g->nnode; i++) {
        Node *n = &g->node[i];
        n->ws_bytes = node_workspace(g, n);
        at += H_GUARD;
        n->ws_off = at;
        at += n->ws_bytes;
    }
    return at + H_GUARD;
}

/* Which bytes belong to a value or to scratch. */
static inline unsigned char *case_map(const Case *c, int64_t bytes) {
    const Graph *g = c->g;
    unsigned char *map = calloc(1, (size_t)bytes);
    for (uint32_t i = 0; i < g->nvalue; i++) {
        const Value *v = &g->value[i];
        if (v->arena >= 0) memset(map + v->off, 1, (size_t)type_bytes(g, &v->ty));
    }
    for (uint32_t i = 0; i < g->nnode; i++) memset(map + g->node[i].ws_off, 1, (size_t)g->node[i].ws_bytes);
    return map;
}

static inline void case_run(Case *c, const Emit *e, const KernelFn *fn, unsigned char *mem, int64_t bytes,
                            int nparts) {
    const Graph *g = c->g;
    unsigned char *map = case_map(c, bytes);
    for (int64_t i = 0; i < bytes; i++) mem[i] = map[i] ? 0xff : 0xa5;
    for (uint32_t i = 0; i < c->nleaf; i++) {
        const Value *v = &g->value[c->leaf[i].v.i];
        case_put(mem + v->off, v->ty.dt, c->leaf[i].x, type_count(g, &v->ty));
    }
    for (uint32_t l = 0; l < e->nlaunch; l++) {
        void *p[32];
        for (uint32_t i = 0; i < e->launch[l].narg; i++) {
            PlanAddr a = e->launch[l].arg[i];
            cr_assert(a.arena == 1 && a.off >= 0 && a.off + e->launch[l].arg_bytes[i] <= bytes,
                      "argument outside memory");
            p[i] = mem + a.off;
        }
        for (int q = 0; q < nparts; q++) fn[l](p, nparts % 2 ? nparts - 1 - q : q, nparts);
    }
    for (int64_t i = 0; i < bytes; i++)
        if (!map[i] && mem[i] != 0xa5) cr_assert(false, "guard byte %lld was written", (long long)i);
    free(map);
}

static inline void case_compare(Case *c, ValueId v, const double *want, const unsigned char *mem,
                                const char *what) {
    const Value *x = &c->g->value[v.i];
    if (x->arena < 0) return;
    double tol = c->tol != 0 ? c->tol : c->real == DT_F64 ? 1e-10 : 2e-5, err = 0, ref = 0;
    int64_t n = type_count(c->g, &x->ty), worst = -1;
    double worst_by = -1;
    for (int64_t i = 0; i < n; i++) {
        double got = case_get(mem + x->off, x->ty.dt, i), by = fabs(got - want[i]);
        if (!dtype_real(x->ty.dt))
            cr_assert(got == want[i], "%s: element %lld is %g, not %g", what, (long long)i, got, want[i]);
        cr_assert(!isnan(got) || isnan(want[i]), "%s: element %lld is NaN, not %g", what, (long long)i,
                  want[i]);
        err += by * by;
        ref += want[i] * want[i];
        if (by > worst_by) {
            worst_by = by;
            worst = i;
        }
    }
    cr_assert(sqrt(err) <= tol * (sqrt(ref) + 1e-30) || sqrt(err) <= tol * 1e-3,
              "%s: relative error %.3g > %.3g; element %lld is %.9g, not %.9g", what, sqrt(err) / sqrt(ref),
              tol, (long long)worst, worst >= 0 ? case_get(mem + x->off, x->ty.dt, worst) : 0.0,
              worst >= 0 ? want[worst] : 0.0);
}

static inline void case_level(Case *c, CpuLevel level, NodeId first, double **want, const char *what) {
    Graph *g = c->g;
    Emit e = {.a = c->a, .g = g, .level = level, .d = c->d};
    int64_t bytes = case_place(c);
    for (uint32_t i = first.i; i < g->nnode; i++) cr_assert(emit_custom(&e, (NodeId){i}));
    KernelSource *src = NEWN(c->a, KernelSource, e.nlaunch + 1);
    KernelFn *fn = NEWN(c->a, KernelFn, e.nlaunch + 1);
    for (uint32_t i = 0; i < e.nlaunch; i++) src[i] = (KernelSource){e.launch[i].source, e.launch[i].len};
    Toolchain tool;
    CacheStats stats = {0, 0, 0};
    if (!toolchain_cc(c->a, env_posix(), level, &tool, c->d)) {
        case_show(c);
        cr_assert(false, "no compiler");
    }
    Cache *cache = cache_open(env_posix(), WM_TEST_CACHE "/custom-cache", &tool, c->d);
    if (!cache || !cache_get(cache, src, e.nlaunch, fn, &stats, c->d)) {
        case_show(c);
        cr_assert(false, "no kernels");
    }
    unsigned char *mem = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64),
                  *again = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
    for (int nparts = 1; nparts <= 4; nparts++) {
        unsigned char *m = nparts == 1 ? mem : again;
        case_run(c, &e, fn, m, bytes, nparts);
        for (uint32_t i = 0; i < g->nvalue; i++) {
            if (g->value[i].def.i < first.i || g->value[i].arena < 0) continue;
            if (nparts == 1)
                case_compare(c, (ValueId){i}, want[i], mem, what);
            else
                cr_assert(memcmp(mem + g->value[i].off, m + g->value[i].off,
                                 (size_t)type_bytes(g, &g->value[i].ty)) == 0,
                          "%s: %d parts give other bits", what, nparts);
        }
    }
    free(mem);
    free(again);
    cache_close(cache);
}

/* Runs every node from `first` on (the others are leaves). */
static inline void case_check(Case *c, NodeId first, const char *what) {
    Graph *g = c->g;
    ValueId want[64];
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->nvalue; i++)
        if (g->value[i].def.i >= first.i) want[n++] = (ValueId){i};
    EvalInput in = {case_fill_leaf, c, c->seed, c->step};
    double **ref = graph_eval(c->a, g, &in, want, n, c->d);
    if (!ref) {
        case_show(c);
        cr_assert(false, "the evaluator failed");
    }
    case_level(c, CPU_V3, first, ref, what);
    if (cpu_level() == CPU_V4) case_level(c, CPU_V4, first, ref, what);
}
static inline NodeId case_node(const Case *c, ValueId v) {
    return c->g->value[v.i].def;
}

#endif
