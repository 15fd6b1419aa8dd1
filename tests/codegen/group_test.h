/* Runs the nodes of a small graph as kernels, one by one or as groups, on buffers between guard bytes. */
#ifndef WM_GROUP_TEST_H
#define WM_GROUP_TEST_H

#include "kernel_test.h"

#include <math.h>

enum { GUARD = 128 };

typedef struct {
    const Graph *g;
    double **in; /* value -> data of leaves, in double */
    unsigned char *mem;
    int64_t bytes;
} Bench;

static uint64_t bench_seed = 1;
static inline double bench_random(void) {
    bench_seed = bench_seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(bench_seed >> 11) * 0x1p-53;
}

static inline double get(DType dt, const void *p, int64_t i) {
    switch (dt) {
    case DT_F64:
        return ((const double *)p)[i];
    case DT_F32:
        return (double)((const float *)p)[i];
    case DT_I32:
        return ((const int *)p)[i];
    case DT_BOOL:
        return ((const unsigned char *)p)[i];
    default:
        return 0;
    }
}
static inline void put(DType dt, void *p, int64_t i, double v) {
    switch (dt) {
    case DT_F64:
        ((double *)p)[i] = v;
        break;
    case DT_F32:
        ((float *)p)[i] = (float)v;
        break;
    case DT_I32:
        ((int *)p)[i] = (int)v;
        break;
    case DT_BOOL:
        ((unsigned char *)p)[i] = v != 0;
        break;
    default:
        break;
    }
}

/* Gives every value (but constants) memory with guards around it; fills inputs with random numbers. */
static inline Bench bench_open(Graph *g) {
    Bench b = {.g = g, .in = NEWN(arena, double *, g->nvalue)};
    g->stage = ST_PLANNED;
    for (uint32_t v = 0; v < g->nvalue; v++) {
        Value *x = &g->value[v];
        if (g->node[x->def.i].op == OP_const) continue;
        x->arena = ARENA_WORK;
        x->off = b.bytes + GUARD;
        b.bytes += (type_bytes(g, &x->ty) + 2 * GUARD + 63) / 64 * 64;
    }
    b.mem = aligned_alloc(64, (size_t)b.bytes + 64);
    for (uint32_t v = 0; v < g->nvalue; v++) {
        const Value *x = &g->value[v];
        const Node *n = &g->node[x->def.i];
        if (n->op != OP_input) continue;
        int64_t count = type_count(g, &x->ty);
        b.in[v] = NEWN(arena, double, count);
        const char *name = attr_str(g, n, "name");
        for (int64_t i = 0; i < count; i++) {
            double r = bench_random(), w = 4 * r - 2;
            if (*name == 'p') w = 0.1 + 2 * r;      /* positive */
            if (*name == 'n') w = floor(4 * r) - 1; /* whole */
            if (x->ty.dt == DT_BOOL) w = r < 0.6;
            if (x->ty.dt == DT_I32) w = floor(8 * r) - 2;
            if (x->ty.dt == DT_F32) w = (double)(float)w;
            b.in[v][i] = w;
        }
    }
    return b;
}

static inline void bench_reset(Bench *b) {
    memset(b->mem, 0xff, (size_t)b->bytes); /* NaN */
    for (uint32_t v = 0; v < b->g->nvalue; v++) {
        if (!b->in[v]) continue;
        const Value *x = &b->g->value[v];
        for (int64_t i = 0; i < type_count(b->g, &x->ty); i++) put(x->ty.dt, b->mem + x->off, i, b->in[v][i]);
    }
}

static inline Emit bench_emit(const Bench *b) {
    return (Emit){.a = arena, .g = b->g, .level = cpu_level(), .d = diags};
}

static inline void bench_run(Bench *b, const Emit *e, int nparts) {
    KernelSource *s = NEWN(arena, KernelSource, e->nlaunch);
    KernelFn *fn = NEWN(arena, KernelFn, e->nlaunch);
    for (uint32_t i = 0; i < e->nlaunch; i++) s[i] = (KernelSource){e->launch[i].source, e->launch[i].len};
    if (!cache_get(cache, s, e->nlaunch, fn, NULL, diags))
        cr_assert_fail("%s\n%s", diags->item[0]->text, s[0].source);
    for (uint32_t i = 0; i < e->nlaunch; i++) {
        void *p[64];
        cr_assert(e->launch[i].narg <= 64);
        for (uint32_t k = 0; k < e->launch[i].narg; k++) p[k] = b->mem + e->launch[i].arg[k].off;
        for (int part = nparts; part-- > 0;) fn[i](p, part, nparts);
    }
}

static inline void bench_guards(const Bench *b) {
    for (uint32_t v = 0; v < b->g->nvalue; v++) {
        const Value *x = &b->g->value[v];
        if (x->off == 0) continue;
        const unsigned char *at = b->mem + x->off;
        int64_t bytes = type_bytes(b->g, &x->ty);
        for (int i = 0; i < GUARD; i++)
            cr_assert(at[-1 - i] == 0xff && at[bytes + i] == 0xff, "value %u: written outside", v);
    }
}

static inline bool bench_leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    const Bench *b = ctx;
    (void)g;
    if (!b->in[n->out0]) return false;
    memcpy(out, b->in[n->out0], (size_t)count * sizeof *out);
    return true;
}

/* Value v in memory against the evaluator. */
static inline void bench_compare(const Bench *b, double **want, ValueId v, double tol64, double tol32,
                                 const char *what) {
    const Value *x = &b->g->value[v.i];
    for (int64_t i = 0; i < type_count(b->g, &x->ty); i++) {
        double got = get(x->ty.dt, b->mem + x->off, i), ref = want[v.i][i];
        double tol = (x->ty.dt == DT_F64 ? tol64 : x->ty.dt == DT_F32 ? tol32 : 0) * (1 + fabs(ref));
        cr_assert(fabs(got - ref) <= tol || got == ref || (isnan(got) && isnan(ref)),
                  "%s: element %lld is %.17g, not %.17g", what, (long long)i, got, ref);
    }
}

static inline double **bench_eval(Bench *b, ValueId v) {
    EvalInput in = {bench_leaf, b, 1, 0};
    double **want = graph_eval(arena, b->g, &in, &v, 1, diags);
    cr_assert(want, "%s", diags->n ? diags->item[0]->text : "eval");
    return want;
}
#endif
