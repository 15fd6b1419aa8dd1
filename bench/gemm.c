/* gemm.c: how fast the generated kernels of single nodes are, with 1 and 2 threads, packing included.
 *   ninja -C build bench_gemm && build/bench/bench_gemm [part of a name]
 * Each line is checked against a few elements computed in double. Best of several runs; one thread by
 * processor time. */
#include "codegen/emit.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_THREADS = 2 };

/* Processor time for one thread (other work on the machine does not count), else time. */
static double now(int nparts) {
    struct timespec t;
    clock_gettime(nparts == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct {
    const Emit *e;
    const KernelFn *fn;
    unsigned char *mem;
    int nparts, part;
    pthread_barrier_t *bar;
    double best, *per;
    int runs;
} Job;

static void *work(void *ctx) {
    Job *j = ctx;
    for (int r = 0; r < j->runs; r++) {
        pthread_barrier_wait(j->bar);
        double t = now(j->nparts), u = t;
        for (uint32_t l = 0; l < j->e->nlaunch; l++) {
            void *p[32];
            for (uint32_t i = 0; i < j->e->launch[l].narg; i++) p[i] = j->mem + j->e->launch[l].arg[i].off;
            j->fn[l](p, j->part, j->nparts);
            pthread_barrier_wait(j->bar);
            double v = now(j->nparts);
            if (j->per && v - u < j->per[l]) j->per[l] = v - u;
            u = v;
        }
        if (u - t < j->best) j->best = u - t;
    }
    return NULL;
}

static double measure(const Emit *e, const KernelFn *fn, unsigned char *mem, int nparts, double *per) {
    pthread_barrier_t bar;
    pthread_barrier_init(&bar, NULL, (unsigned)nparts);
    pthread_t t[MAX_THREADS];
    Job j[MAX_THREADS];
    for (int i = 0; i < nparts; i++) {
        j[i] = (Job){e, fn, mem, nparts, i, &bar, 1e9, i ? NULL : per, 8};
        pthread_create(&t[i], NULL, work, &j[i]);
    }
    for (int i = 0; i < nparts; i++) pthread_join(t[i], NULL);
    pthread_barrier_destroy(&bar);
    return j[0].best;
}

static uint32_t dims_of(Graph *g, const char *text, DimId *d) {
    uint32_t n = 0;
    while (*text) {
        char name[16];
        int i = 0;
        while (*text == ' ') text++;
        while (*text && !(*text >= '0' && *text <= '9')) name[i++] = *text++;
        name[i] = 0;
        d[n++] = graph_dim(g, name, strtol(text, (char **)&text, 10));
    }
    return n;
}
static ValueId leaf(Graph *g, DType dt, const char *dims) {
    DimId d[MAX_DIMS];
    uint32_t n = dims_of(g, dims, d);
    Attr at[1] = {at_str(g, "x")};
    return build_leaf(g, OP_input, type_make(dt, d, n), at, 1);
}

typedef struct {
    const char *name, *op, *x, *y, *over;
} Row;
static const Row rows[] = {
    {"forward d x d", "matmul", "r2048 k256", "n256 k256", "k256"},
    {"forward d x ffn", "matmul", "r2048 k256", "n688 k256", "k256"},
    {"forward ffn x d", "matmul", "r2048 k688", "n256 k688", "k688"},
    {"dX of d x ffn", "matmul", "r2048 n688", "n688 k256", "n688"},
    {"dX of ffn x d", "matmul", "r2048 n256", "n256 k688", "n256"},
    {"dW of d x ffn", "matmul", "r2048 n688", "r2048 k256", "r2048"},
    {"dW of ffn x d", "matmul", "r2048 n256", "r2048 k688", "r2048"},
    {"dW of d x d", "matmul", "r2048 n256", "r2048 k256", "r2048"},
    {"logits, all rows", "matmul", "r2048 k256", "v8192 k256", "k256"},
    {"forward 512", "matmul", "r2048 k512", "n512 k512", "k512"},
    {"square", "matmul", "r1024 k1024", "k1024 n1024", "k1024"},
    {"value head", "matmul", "r2048 k256", "k256", "k256"},
    {"value head dW", "matmul", "r2048", "r2048 k256", "r2048"},
    {"linear_ce", "linear_ce", "b8 s256 h256", "v8192 h256", "h256"},
    {"linear_ce_fb", "linear_ce_fb", "b8 s256 h256", "v8192 h256", "h256"},
    {"attention 4 heads of 64", "attention", "b8 s256 q4 d64", "b8 s256 k4 d64", ""},
    {"attention_grad", "attention_grad", "b8 s256 q4 d64", "b8 s256 k4 d64", ""},
    {"attention s 1024", "attention", "b2 s1024 q8 d64", "b2 s1024 k2 d64", ""},
    {"attention_grad s 1024", "attention_grad", "b2 s1024 q8 d64", "b2 s1024 k2 d64", ""},
    {"scatter_add", "scatter_add", "b8 s256 h256", "b8 s256", "b8 s256"},
};

/* The node of a row; its useful floating point operations. */
static double node_of(Graph *g, const Row *r, NodeId *first) {
    DimId d[MAX_DIMS];
    Attr at[3];
    ValueId v[6] = {leaf(g, DT_F32, r->x), leaf(g, strcmp(r->op, "scatter_add") ? DT_F32 : DT_I32, r->y)};
    uint32_t n = dims_of(g, r->over, d);
    if (strcmp(r->op, "matmul") == 0) {
        ValueId y = b_matmul(g, v[0], v[1], d, n);
        *first = g->value[y.i].def;
        double k = 1;
        for (uint32_t i = 0; i < n; i++) k *= (double)g->dim[d[i].i].size;
        return 2 * k * (double)type_count(g, value_type(g, y));
    }
    Op op;
    if (!op_find(r->op, &op)) return 0;
    if (op == OP_scatter_add) {
        at[0] = at_dim(graph_dim(g, "v", 8192));
        at[1] = at_dims(g, d, n);
        *first = g->value[build(g, op, v, 2, at, 2).i].def;
        return (double)type_count(g, value_type(g, v[0]));
    }
    if (op == OP_linear_ce || op == OP_linear_ce_fb) {
        bool fb = op == OP_linear_ce_fb;
        v[2] = leaf(g, DT_I32, "b8 s256");
        v[3] = leaf(g, DT_F32, "b8 s256");
        at[0] = at_dims(g, d, n);
        DimId cls;
        if (!graph_find_dim(g, "v", &cls)) return 0;
        at[1] = at_dim(cls);
        dims_of(g, "b8 s256", d);
        at[2] = at_dims(g, d, 2);
        *first = g->value[build(g, op, v, fb ? 4 : 3, at, fb ? 3 : 2).i].def;
        return (fb ? 6.0 : 2.0) * 2048 * 8192 * 256;
    }
    DimId s, over;
    if (!graph_find_dim(g, "s", &s) || !graph_find_dim(g, "d", &over)) return 0;
    at[0] = at_dim(s);
    at[1] = at_dim(over);
    v[2] = leaf(g, DT_F32, r->y);
    ValueId o;
    double f = 2.0 * (double)type_count(g, value_type(g, v[0])) * (double)g->dim[s.i].size;
    if (op == OP_attention) {
        o = build(g, op, v, 3, at, 2);
    } else {
        v[3] = leaf(g, DT_F32, r->x);
        v[5] = leaf(g, DT_F32, r->x);
        v[4] = leaf(g, DT_F32, strstr(r->x, "s256") ? "b8 s256 q4" : "b2 s1024 q8");
        o = build(g, op, v, 6, at, 2);
        f *= 2.5;
    }
    *first = g->value[o.i].def;
    return f;
}

static double dot_error(const Graph *g, const Node *n, const unsigned char *mem, const Row *r) {
    if (strcmp(r->op, "matmul") != 0) return 0;
    const Value *x = &g->value[g->operand[n->in0].i], *y = &g->value[g->operand[n->in0 + 1].i],
                *c = &g->value[n->out0];
    const DimId *over;
    uint32_t nover = attr_dims(g, n, "over", &over);
    int64_t stride[3][MAX_DIMS * 2], size[MAX_DIMS * 2];
    const Value *v[3] = {x, y, c};
    DimId all[MAX_DIMS * 2];
    uint32_t nd = 0;
    for (int i = 0; i < c->ty.ndim; i++) all[nd++] = c->ty.dim[i];
    for (uint32_t i = 0; i < nover; i++) all[nd++] = over[i];
    for (uint32_t i = 0; i < nd; i++) {
        size[i] = g->dim[all[i].i].size;
        for (int t = 0; t < 3; t++) {
            int64_t s = 1;
            stride[t][i] = 0;
            for (int q = v[t]->ty.ndim - 1; q >= 0; q--) {
                if (v[t]->ty.dim[q].i == all[i].i) stride[t][i] = s;
                s *= g->dim[v[t]->ty.dim[q].i].size;
            }
        }
    }
    double worst = 0;
    for (int t = 0; t < 200; t++) {
        int64_t at[3] = {0, 0, 0};
        for (int i = 0; i < c->ty.ndim; i++) {
            int64_t k = rand() % size[i];
            for (int q = 0; q < 3; q++) at[q] += k * stride[q][i];
        }
        double s = 0, a = 0;
        int64_t k = nover ? size[c->ty.ndim] : 1;
        for (int64_t i = 0; i < k; i++) {
            double p = (double)((const float *)(mem + x->off))[at[0] + i * stride[0][c->ty.ndim]] *
                       (double)((const float *)(mem + y->off))[at[1] + i * stride[1][c->ty.ndim]];
            s += p;
            a += fabs(p);
        }
        double e = fabs(s - (double)((const float *)(mem + c->off))[at[2]]) / a;
        if (!(e <= worst)) worst = e;
    }
    return worst;
}

static void bench(Arena *a, Diags *d, const Row *r, bool detail) {
    Graph *g = graph_new(a, "bench", ST_PLANNED);
    NodeId first = {0};
    double flops = node_of(g, r, &first);
    int64_t bytes = 64;
    for (uint32_t i = 0; i < g->nvalue; i++) {
        g->value[i].arena = 1;
        g->value[i].off = bytes;
        bytes += (type_bytes(g, &g->value[i].ty) + 63) / 64 * 64 + 64;
    }
    Node *n = &g->node[first.i];
    for (uint32_t i = 1; i < 4 && n->op == OP_linear_ce; i++) g->value[n->out0 + i].arena = -1;
    for (uint32_t i = 1; i < 4 && n->op == OP_linear_ce_fb; i++) g->value[n->out0 + i].arena = -1;
    n->ws_bytes = node_workspace(g, n);
    n->ws_off = bytes;
    bytes += n->ws_bytes + 64;
    Emit e = {.a = a, .g = g, .level = cpu_level(), .d = d};
    emit_custom(&e, first);
    Toolchain tool;
    CacheStats st;
    KernelSource *src = NEWN(a, KernelSource, e.nlaunch);
    KernelFn *fn = NEWN(a, KernelFn, e.nlaunch);
    for (uint32_t i = 0; i < e.nlaunch; i++) src[i] = (KernelSource){e.launch[i].source, e.launch[i].len};
    if (!toolchain_cc(a, env_posix(), e.level, &tool, d)) return;
    Cache *cache = cache_open(env_posix(), NULL, &tool, d);
    if (!cache || !cache_get(cache, src, e.nlaunch, fn, &st, d)) return;
    unsigned char *mem = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
    memset(mem, 0, (size_t)bytes);
    for (uint32_t i = 0; i < g->nvalue; i++) {
        const Value *v = &g->value[i];
        int64_t count = type_count(g, &v->ty);
        for (int64_t q = 0; q < count && v->def.i < first.i; q++) {
            if (v->ty.dt == DT_I32)
                ((int32_t *)(mem + v->off))[q] = rand() % 8192;
            else
                ((float *)(mem + v->off))[q] = (float)rand() / (float)RAND_MAX - 0.5f;
        }
    }
    double per[2][512], best[2];
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < 512; i++) per[t][i] = 1e9;
        best[t] = measure(&e, fn, mem, t + 1, per[t]);
    }
    printf("%-26s %7.2f ms %6.1f   %7.2f ms %6.1f GF/s   error %.1e  %u launches\n", r->name, best[0] * 1e3,
           flops / best[0] * 1e-9, best[1] * 1e3, flops / best[1] * 1e-9, dot_error(g, n, mem, r), e.nlaunch);
    for (uint32_t i = 0; i < e.nlaunch && detail && i < 12; i++)
        printf("    %8.3f %8.3f ms  %s\n", per[0][i] * 1e3, per[1][i] * 1e3, e.launch[i].what);
    free(mem);
    cache_close(cache);
}

int main(int argc, char **argv) {
    Diags *d = diags_open(env_posix());
    Guard guard = {.diags = d};
    Arena *a = arena_open(env_posix(), &guard);
    if (setjmp(guard.out) == 0) {
        printf("%-26s %17s   %17s\n", "", "1 thread", "2 threads");
        for (size_t i = 0; i < WM_LEN(rows); i++)
            if (argc < 2 || strstr(rows[i].name, argv[1])) bench(a, d, &rows[i], argc > 1);
    }
    Sbuf b;
    sb_init(&b, a);
    diags_render(d, &b, false);
    printf("%s", b.s ? b.s : "");
    return diags_exit(d);
}
